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
    replica that drains and is to pause or resume, and StoreUnavailable. A NotFound tells what became of the replica.
    """
    name = replica_of(id)
    before = await cluster.replica(store, name)
    if before is None:
        raise await _gone(store, id)
    outcome = await store.instruct(name, action, by)
    if outcome == "unknown":
        raise await _gone(store, id)
    if outcome == "frontend":
        raise InvalidValue(
            f"{name} is a frontend, and only a worker can {action}; drain it, or take it out of the load balancer",
            param="id",
        )
    if outcome == "draining":
        raise Conflict(f"{name} drains, which nothing undoes; start another worker in its place")
    return await cluster.replica(store, name) or replace(before, state=ReplicaState.DRAINING)


async def _gone(store: Store, id: str) -> NotFound:
    """Return the error for an id that no living replica has. Raises StoreUnavailable."""
    fate = await store.fate_of(replica_of(id))
    if fate == "left":
        return NotFound(f"The replica {id:.100} has left")
    if fate == "expired":
        return NotFound(f"The replica {not_in_order(id)}")
    return NotFound(f"The replica {id:.100} is unknown; it may have left, or its lease may have expired")


def not_in_order(id: str) -> str:
    """Return the words about a replica that ended before it had announced that nothing of it is left."""
    return f"{id:.100} has not left in order: its requests were moved, or have failed as worker_lost or frontend_lost"
