"""Tell a replica to drain, to pause or to resume."""

from __future__ import annotations

from dataclasses import replace

from lifecycle.errors import Conflict, InvalidValue, NotFound
from lifecycle.ids import replica_of
from lifecycle.queries import cluster
from lifecycle.records import Replica
from lifecycle.store.transitions import Store
from lifecycle.types import ReplicaAction, ReplicaState


async def instruct(store: Store, id: str, action: ReplicaAction, by: str) -> Replica:
    """Instruct a replica and return it as it is listed now; it follows at once, or with its next heartbeat.

    `id` may also be one of a record, which has a suffix where the replica's lease had expired. `by` says who wants it.
    Repetitions change nothing. Raises NotFound, InvalidValue for a frontend that is to pause or resume, Conflict for a
    replica that drains and is to pause or resume, and StoreUnavailable.
    """
    name = replica_of(id)
    before = await cluster.replica(store, name)
    if before is None:
        raise unknown(id)
    outcome = await store.instruct(name, action, by)
    if outcome == "unknown":
        raise unknown(id)
    if outcome == "frontend":
        raise InvalidValue(
            f"{name} is a frontend, and only a worker can {action}; drain it, or take it out of the load balancer",
            param="id",
        )
    if outcome == "draining":
        raise Conflict(f"{name} drains, which nothing undoes; start another worker in its place")
    return await cluster.replica(store, name) or replace(before, state=ReplicaState.DRAINING)


def unknown(id: str) -> NotFound:
    """Return the error for an id that no living replica has."""
    return NotFound(f"The replica {id:.100} is unknown; it may have left, or its lease may have expired")
