"""`replicas`: list the frontends and workers, and tell one to drain, to pause or to resume."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import listing, output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json
from lifecycle.records import Replica
from lifecycle.settings import Settings
from lifecycle.types import OPERATOR_CLI, ReplicaAction, ReplicaState

if TYPE_CHECKING:
    from lifecycle.store.transitions import Store

app = typer.Typer(name="replicas", help="List the frontends and workers; drain, pause or resume one of them.")

_POLL_SECS = 0.2

Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the replica, as the list or a record shows it.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until the replica has followed; of a drain, until it is gone.")
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
    """Let a replica finish what it has and then leave. Exits 1 when ID is unknown, or --wait was not long enough."""
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
        replica = await instructions.instruct(store, id, action, OPERATOR_CLI)
        latest: Replica | None = replica
        if wait_secs is not None:
            latest = await _wait_until_followed(store, replica, action, wait_secs)
        followed = _has_followed(latest, action)
        if json:
            output.write_json((latest or replica).to_json() | {"left": latest is None})
        elif latest is None:
            output.write(f"{replica.id}: has left")
        else:
            output.write(
                f"{latest.id}: {'' if followed else f'told to {action}; '}{latest.state}, inflight {latest.inflight}"
            )
        if wait_secs is not None and not followed:
            why = f"has not followed within {wait_secs:g} s: see its log" if latest else "has left instead"
            output.complain(f"{replica.id} {why}")
            return 1
        return 0

    return operate(settings, work)


async def _wait_until_followed(
    store: Store, replica: Replica, action: ReplicaAction, wait_secs: float
) -> Replica | None:
    """Return the replica once it has followed, or as it is after this time; None when it is gone."""
    from lifecycle.queries import cluster

    give_up_at = time.monotonic() + wait_secs
    latest: Replica | None = replica
    while latest is not None and not _has_followed(latest, action) and time.monotonic() < give_up_at:
        await asyncio.sleep(_POLL_SECS)
        latest = await cluster.replica(store, replica.id)
    return latest


def _has_followed(replica: Replica | None, action: ReplicaAction) -> bool:
    if replica is None:
        return action is ReplicaAction.DRAIN
    if action is ReplicaAction.DRAIN:
        return False
    return (replica.state == ReplicaState.PAUSED) == (action is ReplicaAction.PAUSE)
