"""`replicas`: list the frontends and workers, and tell one to drain, to pause or to resume."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.cli import listing, output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json
from lifecycle.errors import NotFound, StoreUnavailable
from lifecycle.ids import replica_of
from lifecycle.records import Replica
from lifecycle.settings import Settings
from lifecycle.types import OPERATOR_CLI, ReplicaAction, ReplicaState

if TYPE_CHECKING:
    from lifecycle.store.instructions import Fate
    from lifecycle.store.transitions import Store

app = typer.Typer(name="replicas", help="List the frontends and workers; drain, pause or resume one of them.")

_POLL_SECS = 0.2
_LISTED: Fate = "listed"
_OPEN = ("listed", "unknown")  # the fates that are not the last

Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the replica, as the list or a record shows it.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until the replica has followed; of a drain, until it has left.")
]
Timeout = Annotated[float, typer.Option(help="Maximum time that --wait waits.", min=0, max=86_400)]


@app.callback(invoke_without_command=True)
@with_settings(OPERATOR)
def show(settings: Settings, context: typer.Context, json: Json = False) -> int:
    """List the frontends and workers that hold a lease."""
    if context.invoked_subcommand is not None:
        return 0
    from lifecycle.cli.operate import operate
    from lifecycle.queries import cluster

    async def work(store: Store) -> int:
        living = await cluster.replicas(store)
        if json:
            output.write_json({"object": "list", "data": [replica.to_json() for replica in living]})
            return 0
        now = await store.now()
        rows = (listing.replica_row(replica, now) for replica in living)
        output.write("\n".join(output.table(listing.REPLICA_HEADS, rows)))
        return 0

    raise typer.Exit(operate(settings, work))


@app.command()
@with_settings(OPERATOR)
def drain(settings: Settings, id: Id, wait: Wait = False, timeout_secs: Timeout = 60.0, json: Json = False) -> int:
    """Let a replica finish what it has and then leave.

    Exits 1 when ID is unknown, when --wait was not long enough, or when the replica was lost instead, as by kill -9.
    """
    return _instruct(settings, id, ReplicaAction.DRAIN, timeout_secs if wait else None, json)


@app.command()
@with_settings(OPERATOR)
def pause(settings: Settings, id: Id, wait: Wait = False, timeout_secs: Timeout = 60.0, json: Json = False) -> int:
    """Let a worker take nothing new; what runs goes on. Exits 1 when ID is unknown, a frontend, or drains."""
    return _instruct(settings, id, ReplicaAction.PAUSE, timeout_secs if wait else None, json)


@app.command()
@with_settings(OPERATOR)
def resume(settings: Settings, id: Id, wait: Wait = False, timeout_secs: Timeout = 60.0, json: Json = False) -> int:
    """Let a paused worker take requests again. Exits 1 when ID is unknown, a frontend, or drains."""
    return _instruct(settings, id, ReplicaAction.RESUME, timeout_secs if wait else None, json)


def _instruct(settings: Settings, id: str, action: ReplicaAction, wait_secs: float | None, json: bool) -> int:
    """Instruct a replica and print it. Raises NotFound, InvalidValue, Conflict and StoreUnavailable."""
    from lifecycle.cli.operate import operate
    from lifecycle.queries import instructions

    async def work(store: Store) -> int:
        try:
            told = await instructions.instruct(store, id, action, OPERATOR_CLI)
        except NotFound:
            if wait_secs is None or action is not ReplicaAction.DRAIN or await store.fate_of(replica_of(id)) != "left":
                raise
            _show({"id": id}, "left", f"{id}: has left", json)
            return 0
        latest, fate = told, _LISTED
        if wait_secs is not None:
            latest, fate = await _wait_until_followed(store, told, action, wait_secs)
        followed = _has_followed(latest, fate, action)
        if fate == "left":
            line = f"{told.id}: has left"
        elif fate == "expired":
            line = ""
        else:
            line = f"{told.id}: {'' if followed else f'told to {action}; '}{latest.state}, inflight {latest.inflight}"
        _show(latest.to_json(), fate, line, json)
        if wait_secs is None or followed:
            return 0
        output.complain(_why_not(told.id, fate, wait_secs))
        return 1

    return operate(settings, work)


def _show(replica: dict[str, Any], fate: Fate, line: str, json: bool) -> None:
    if json:
        output.write_json(replica | {"left": fate == "left"})
    elif line:
        output.write(line)


def _why_not(id: str, fate: Fate, wait_secs: float) -> str:
    """Return why a replica has not followed."""
    from lifecycle.queries.instructions import not_in_order

    if fate == "left":
        return f"{id} has left instead"
    if fate == "expired":
        return not_in_order(id)
    lost = "; Redis has lost what became of it" if fate == "unknown" else ""
    return f"{id} has not followed within {wait_secs:g} s{lost}: see its log"


async def _wait_until_followed(
    store: Store, replica: Replica, action: ReplicaAction, wait_secs: float
) -> tuple[Replica, Fate]:
    """Return the replica as it was listed last, and its fate, once it has followed or cannot, or after this time.

    Where Redis has lost its data, the next heartbeat of a living replica tells more. Raises StoreUnavailable when Redis
    is away at the end.
    """
    from lifecycle.queries import cluster

    give_up_at = time.monotonic() + wait_secs
    latest, fate, failure = replica, _LISTED, None
    while fate in _OPEN and not _has_followed(latest, fate, action) and time.monotonic() < give_up_at:
        await asyncio.sleep(_POLL_SECS)
        try:
            listed = await cluster.replica(store, replica.id)
            latest, fate = listed or latest, "listed" if listed else await store.fate_of(replica.id)
            failure = None
        except StoreUnavailable as unavailable:
            failure = unavailable
    if failure is not None:
        raise failure
    return latest, fate


def _has_followed(replica: Replica, fate: Fate, action: ReplicaAction) -> bool:
    if action is ReplicaAction.DRAIN or fate != "listed":
        return action is ReplicaAction.DRAIN and fate == "left"
    return (replica.state == ReplicaState.PAUSED) == (action is ReplicaAction.PAUSE)
