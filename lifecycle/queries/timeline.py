"""Tell what happened to one request, in order: from its record, and from the steps that scripts noted in it.

The record itself says when the request was admitted, last started, had its first event and ended. Only what most
requests do not have is noted: readers that come and go, cancels, lost clients, earlier attempts and moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lifecycle.queries import tree
from lifecycle.queries.tree import CHILDREN_SHOWN
from lifecycle.store.results import Steps
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord

WHATS = (
    "admitted",
    "queued",
    "started",
    "first_event",
    "child_started",
    "reader_attached",
    "reader_left",
    "client_disconnected",
    "client_closed",
    "frontend_changed",
    "cancel_requested",
    "attempt_ended",
    "left_out",
    "ended",
)
"""All kinds of entries."""


class Entry(NamedTuple):
    """One thing that happened to a request, at a time by Redis's clock. `details` depend on `what`."""

    at: float
    what: str
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the HTTP API and `--json` show."""
        return {"at": self.at, "what": self.what} | self.details


class Timeline(NamedTuple):
    """The entries of one request, the oldest first."""

    record: RequestRecord
    entries: list[Entry]

    def to_json(self) -> dict[str, Any]:
        """Return the body of `GET /v1/requests/{id}/timeline`."""
        return {"object": "list", "data": [entry.to_json() for entry in self.entries]}


async def read(store: Store, rid: str, may_see: Callable[[str | None], bool] = tree.everything) -> Timeline | None:
    """Return the timeline of a request, or None when it is unknown or has expired. Raises StoreUnavailable.

    `may_see` tells whether requests of an owner, that it has started, are shown.
    """
    found = await store.read_timeline(rid, retry_for_secs=0.3)
    if found is None:
        return None
    started = [rid for rid, _ in await store.children_of(rid, CHILDREN_SHOWN)]
    children = [_child(child) for child in await tree.children(store, rid, started) if may_see(child.owner)]
    return Timeline(found.record, sorted([*assemble(found), *children], key=lambda entry: entry.at))


def assemble(found: Steps) -> list[Entry]:
    """Return the entries of a request, the oldest first. What happened at the same time stays in its natural order."""
    record, entries = found.record, _admission(found)
    for step in found.steps:
        entries += _entries_of(step)
    if found.left_out:
        middle = found.steps[len(found.steps) // 2]
        entries.append(Entry(float(middle["at"]), "left_out", {"steps": found.left_out}))
    if record.started_at is not None:
        entries.append(Entry(record.started_at, "started", _attempt(record)))
    if record.first_token_at is not None:
        entries.append(Entry(record.first_token_at, "first_event", {}))
    if record.finished_at is not None:
        entries += _end(record, record.finished_at)
    return sorted(entries, key=lambda entry: entry.at)


def _child(record: RequestRecord) -> Entry:
    return Entry(record.created_at, "child_started", {"child": record.id, "model": record.model})


def _admission(found: Steps) -> list[Entry]:
    record = found.record
    moves = [step["previous"] for step in found.steps if step["what"] == "frontend_changed"]
    admitted = {"frontend": moves[0] if moves else record.frontend, "owner": record.owner, "model": record.model}
    if record.parent:
        admitted["parent"] = record.parent
    queued = [] if record.is_local else [Entry(record.created_at, "queued", {})]
    return [Entry(record.created_at, "admitted", admitted), *queued]


def _entries_of(step: dict[str, Any]) -> list[Entry]:
    """Return what one noted step tells: the end of an attempt also tells its start and that the request waits again."""
    at, what = float(step["at"]), step["what"]
    details = {name: value or None for name, value in step.items() if name not in ("at", "what", "started_at")}
    if what != "requeued":
        return [Entry(at, what, details)]
    queued = Entry(at, "queued", {})
    attempt = {"attempt": step["attempt"], "worker": step["worker"]}
    failure = {"error_type": step.get("error_type", ""), "error_message": step.get("error_message")}
    outcome = {"outcome": "failed" if failure["error_type"] else "moved"}
    if "preempted_by" in step:
        outcome = {"outcome": "preempted", "preempted_by": step["preempted_by"]}
    ended = Entry(at, "attempt_ended", attempt | outcome | failure)
    started = [Entry(float(step["started_at"]), "started", attempt)] if step.get("started_at") else []
    return [*started, ended, queued]


def _attempt(record: RequestRecord) -> dict[str, Any]:
    return {"attempt": record.attempt, "worker": record.worker}


def _end(record: RequestRecord, at: float) -> list[Entry]:
    failure = {"error_type": record.error_type, "error_message": record.error_message}
    outcome = {"outcome": record.status.value}
    attempt = [Entry(at, "attempt_ended", _attempt(record) | outcome | failure)] if record.started_at else []
    ended = {
        "status": record.status.value,
        **failure,
        "finish_reason": record.finish_reason,
        "cancelled_by": record.cancelled_by,
        "cancelled_via": record.cancelled_via,
    }
    return [*attempt, Entry(at, "ended", ended)]
