"""`why`: say in plain words what happened to a request, in order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.cli import output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json
from lifecycle.ids import is_request_id
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from lifecycle.queries.timeline import Timeline
    from lifecycle.queries.tree import Tree
    from lifecycle.store.transitions import Store

_CANCELLERS = {
    "anonymous": "a caller without an API key",
    "operator:cli": "an operator at the command line",
    "operator:library": "a program that uses the library",
    "disconnect": "the loss of its client",
}


@with_settings(OPERATOR)
def why(
    settings: Settings,
    rid: Annotated[str, typer.Argument(metavar="ID", help="Id of the request.")],
    json: Json = False,
) -> int:
    """Say what happened to a request, in order. Exits 1 when it is unknown or its record has expired."""
    from lifecycle.cli.operate import operate
    from lifecycle.queries import timeline, tree

    async def work(store: Store) -> int:
        found = await timeline.read(store, rid) if is_request_id(rid) else None
        if found is None:
            output.complain(f"{rid}: no such request; it is unknown or its record has expired")
            return 1
        if json:
            output.write_json(found.to_json())
        else:
            told = lines(found)
            requests = await tree.read(store, rid)
            if requests is not None and len(requests.nodes) > 1:
                told += ["", "Its tree:", *tree_lines(requests, rid)]
            output.write("\n".join(told))
        return 0

    return operate(settings, work)


def lines(timeline: Timeline) -> list[str]:
    """Return one line for each entry: the time of day in UTC, the seconds since admission, and a sentence."""
    begun = timeline.record.created_at
    told = []
    for at, what, details in timeline.entries:
        time = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]
        told.append(output.printable(f"{time}  {f'+{at - begun:.3f} s':>12}  {_SENTENCES[what](details)}"))
    return told


def tree_lines(tree: Tree, rid: str) -> list[str]:
    """Return one line for each request of a tree, below the one that started it."""
    told = []
    for record, depth in tree.nodes:
        by = f" by {_who(record.cancelled_by)}" if record.cancelled_by else ""
        state = record.status.value
        if record.cancel_requested_at is not None and not record.status.terminal:
            state = f"{state}, being cancelled"
        here = "  <- this request" if record.id == rid else ""
        told.append(output.printable(f"{'  ' * (depth + 1)}{record.id}  {state}{by}{here}"))
    if tree.has_more:
        told.append("  (Further requests of the tree are not shown.)")
    return told


def _admitted(entry: dict[str, Any]) -> str:
    owner = f", for {entry['owner']}" if entry["owner"] else ""
    parent = f"; {entry['parent']} started it" if "parent" in entry else ""
    return f"Frontend {entry['frontend']} admitted it for the model {entry['model']}{owner}{parent}."


def _cancel_requested(entry: dict[str, Any]) -> str:
    how = "as soon as possible" if entry["mode"] == "kill" else "after what was already generated"
    return f"Its end was asked for ({entry['mode']}: {how}) by {_who(entry['by'])}{_through(entry['via'])}."


def _attempt_ended(entry: dict[str, Any]) -> str:
    if entry["outcome"] == "moved":
        return f"Attempt {entry['attempt']} ended: worker {entry['worker']} gave the request away."
    if entry["outcome"] == "preempted":
        return (
            f"Attempt {entry['attempt']} on worker {entry['worker']} ended: the request was preempted by a request of "
            f"priority {entry['preempted_by']}, which is better than its own."
        )
    return f"Attempt {entry['attempt']} on worker {entry['worker']} ended: {entry['outcome']}{_because(entry)}."


def _ended(entry: dict[str, Any]) -> str:
    who = entry["cancelled_by"]
    by = f", by {_who(who)}{_through(entry['cancelled_via'])}" if who else ""
    return f"It ended as {entry['status']}{by}{_because(entry)}."


def _because(entry: dict[str, Any]) -> str:
    words = ": ".join(" ".join(part.split()) for part in (entry["error_type"], entry["error_message"]) if part)
    return f" ({words.rstrip('.')})" if words else ""


def _who(canceller: str) -> str:
    kind, _, name = canceller.partition(":")
    named = {"owner": "its owner", "operator": "the operator", "parent": "its parent", "limit": "the limit"}
    return _CANCELLERS.get(canceller) or f"{named.get(kind, kind)} {name}"


def _through(frontend: str | None) -> str:
    return f", through frontend {frontend}" if frontend else ""


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "admitted": _admitted,
    "queued": lambda _: "It waited for a worker.",
    "started": lambda entry: f"Worker {entry['worker']} started attempt {entry['attempt']}.",
    "first_event": lambda _: "The engine produced its first event.",
    "child_started": lambda entry: f"It started the request {entry['child']}.",
    "reader_attached": lambda entry: f"A reader came to frontend {entry['frontend']}.",
    "reader_left": lambda entry: f"A reader left frontend {entry['frontend']}.",
    "client_disconnected": lambda entry: f"Its client disconnected from frontend {entry['frontend']}.",
    "client_closed": lambda entry: f"Its client's connection to frontend {entry['frontend']} was closed as planned.",
    "frontend_changed": lambda entry: f"Frontend {entry['frontend']} took it over from {entry['previous']}.",
    "cancel_requested": _cancel_requested,
    "attempt_ended": _attempt_ended,
    "left_out": lambda entry: f"({entry['steps']} further steps were not kept.)",
    "ended": _ended,
}
