"""Tell what waits for each model, by owner, and for how long it will. Every function raises StoreUnavailable."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence

from lifecycle.errors import StoreUnavailable
from lifecycle.queries.start_order import drain_per_sec, last_positions, position_of, starts_per_sec
from lifecycle.records import ModelQueue, QueueOwner
from lifecycle.store.results import Roster
from lifecycle.store.shard_queues import ShardQueue, read_shard_queue, read_whole_queue
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import slots_of, workers_of
from lifecycle.types import RequestRecord, Status


class _OwnerSums:
    """Add up one owner's flows of all shards."""

    def __init__(self) -> None:
        self.queued = 0
        self.oldest_at = float("inf")
        self.weight = 1.0
        self.waits: list[float | None] = []


async def read_queues(store: Store, model: str = "") -> list[ModelQueue]:
    """Return the queues of the models that living workers serve, or that somebody waits for; of one if it is named."""
    slots = slots_of(workers_of(await store.listed(), store.settings.lease_secs))
    waiting = await store.queued_bytes()
    names = sorted(name for name in {*slots, *waiting} if model in ("", name))
    return [await _model_queue(store, name, slots.get(name, 0)) for name in names]


async def _model_queue(store: Store, model: str, slots: int) -> ModelQueue:
    shards = await asyncio.gather(*(read_whole_queue(store, shard, model) for shard in range(store.settings.shards)))
    now = max(shard.now for shard in shards)
    owners: defaultdict[str, _OwnerSums] = defaultdict(_OwnerSums)
    for shard in shards:
        rate, places = starts_per_sec(shard, share_of(slots, shards)), last_positions(shard)
        for flow in shard.flows:
            sums = owners[flow.owner]
            sums.queued += flow.size
            sums.oldest_at = min(sums.oldest_at, flow.oldest_at)
            sums.weight = flow.weight
            sums.waits.append(places[flow.priority, flow.owner] / rate if rate else None)
    shown = tuple(
        QueueOwner(
            owner,
            sums.weight,
            sums.queued,
            round(max(0.0, now - sums.oldest_at), 3),
            None if None in sums.waits else round(max(wait for wait in sums.waits if wait is not None), 3),
        )
        for owner, sums in sorted(owners.items())
    )
    is_whole = not any(shard.left_out for shard in shards)
    return ModelQueue(
        model,
        sum(owner.queued for owner in shown) if is_whole else await store.queue_length(model),
        max((owner.oldest_secs for owner in shown), default=0.0),
        round(sum(map(drain_per_sec, shards)), 3),
        shown,
    )


async def read_model(store: Store, model: str) -> Sequence[ShardQueue]:
    """Return what waits for a model, shard by shard."""
    shards = range(store.settings.shards)
    return await asyncio.gather(*(read_shard_queue(store, shard, model) for shard in shards))


def share_of(slots: int, shards: Iterable[ShardQueue]) -> float:
    """Return how many of the slots for a model serve each shard in which requests wait, as workers take turns."""
    return slots / max(1, sum(1 for shard in shards if shard.flows))


async def with_wait(store: Store, record: RequestRecord) -> RequestRecord:
    """Return the record with its place in the queue and how long it will wait, if it is queued.

    The place is known to the record's own shard. What other shards tell of the wait is left out while they are away.
    """
    if record.status is not Status.QUEUED:
        return record
    own = store.keys.shard_of(record.id)
    queue, busy, roster = await asyncio.gather(
        read_shard_queue(store, own, record.model, record.id), store.busy_shards(record.model), _listed(store)
    )
    if queue.place is None:  # it has just started
        return await store.read(record.id) or record
    position = position_of(queue, *queue.place)
    slots = slots_of(workers_of(roster, store.settings.lease_secs)).get(record.model, 0)
    rate = starts_per_sec(queue, slots / max(1, busy))
    return record._replace(
        queue_position=position, estimated_wait_secs=round(position / rate, 3) if rate is not None else None
    )


async def _listed(store: Store) -> Roster:
    """Return the listed replicas, those that were seen last while the control slot is away."""
    try:
        return await store.listed()
    except StoreUnavailable:
        return store.roster_cache.roster()
