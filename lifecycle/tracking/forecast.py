"""Foresee how long requests will wait, for those that are refused and those that could not be in time.

What is known of a model's queue is read when it is asked for, at most twice a second for each model, so that neither
refusals nor a flood of them cost Redis much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lifecycle.errors import StoreUnavailable
from lifecycle.queries.queues import read_model, share_of
from lifecycle.queries.start_order import position_of, starts_per_sec
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.store.shard_queues import ShardQueue
from lifecycle.store.transitions import Store

_FRESH_SECS = 0.5
_MODELS = 1000  # whose queues are remembered at most


@dataclass(slots=True)
class _Known:
    """Remember one model's queue. Callers that come while it is read wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shards: Sequence[ShardQueue] = ()
    read_at: float = float("-inf")
    until_place: dict[str, float | None] = field(default_factory=dict)  # seconds, by the owners that were asked for


class Forecast:
    """Estimate waits from what Redis knows of the queues. Each method returns None where nothing tells."""

    def __init__(self, store: Store, slots_of: Callable[[str], int]) -> None:
        """`slots_of` returns how many requests for a model its workers can run at a time."""
        self._store = store
        self._slots_of = slots_of
        self._known: dict[str, _Known] = {}

    async def secs_until_start(self, admit: AdmissionRequest) -> float | None:
        """Return how long a request would wait if it were admitted now.

        It is 0 when nothing waits, and when a worker takes the request at once, which may preempt another one.
        """
        model, place = admit.labels.model, admit.place
        shards = await self._read(model)
        if not shards:
            return None
        queue = shards[self._store.keys.shard_of(admit.rid)]
        if not queue.flows or (queue.rings_below is not None and place.priority < queue.rings_below):
            return 0.0
        rank = sum(f.size for f in queue.flows if f.owner == admit.owner and f.priority == place.priority)
        rate = starts_per_sec(queue, share_of(self._slots_of(model), shards))
        return position_of(queue, place.priority, admit.owner, rank, place.weight) / rate if rate else None

    async def secs_to_run(self, model: str) -> float:
        """Return for how long a request of the model runs; 0 where nothing tells."""
        known = [queue.mean_secs for queue in await self._read(model) if queue.mean_secs is not None]
        return sum(known) / len(known) if known else 0.0

    async def secs_until_place(self, model: str, owner: str) -> float | None:
        """Return how long it takes until the next queued request of the owner starts, which frees its place.

        The owner has something queued. Where its flow was not read it is taken to be in the middle of those.
        """
        known = await self._known_of(model)
        if owner not in known.until_place:
            known.until_place[owner] = self._place_secs(known.shards, model, owner)
        return known.until_place[owner]

    def _place_secs(self, shards: Sequence[ShardQueue], model: str, owner: str) -> float | None:
        waits = []
        for queue in shards:
            rate = starts_per_sec(queue, share_of(self._slots_of(model), shards))
            own = [position_of(queue, f.priority, owner, 0) for f in queue.flows if f.owner == owner]
            if not own and queue.left_out:
                own = [len(queue.flows) + (queue.left_out + 1) // 2]
            if rate and own:
                waits.append(min(own) / rate)
        return min(waits, default=None)

    async def secs_until_any_start(self, model: str) -> float | None:
        """Return how long it takes until any queued request of the model starts."""
        shards = await self._read(model)
        rates = [starts_per_sec(queue, share_of(self._slots_of(model), shards)) for queue in shards if queue.flows]
        total = sum(rate for rate in rates if rate)
        return 1 / total if total else None

    async def secs_until_end(self, model: str, owner: str, inflight: int) -> float | None:
        """Return how long it takes until one of the owner's requests ends, `inflight` of which are inflight."""
        shards = await self._read(model)
        run_secs = await self.secs_to_run(model)
        if not run_secs:
            return None
        running = inflight - sum(flow.size for queue in shards for flow in queue.flows if flow.owner == owner)
        if running > 0:
            return run_secs / running
        until_start = await self.secs_until_place(model, owner)
        return None if until_start is None else until_start + run_secs

    async def _read(self, model: str) -> Sequence[ShardQueue]:
        """Return the queue of a model, shard by shard; nothing when Redis is away."""
        return (await self._known_of(model)).shards

    async def _known_of(self, model: str) -> _Known:
        if len(self._known) >= _MODELS and model not in self._known:
            self._known.clear()
        known = self._known.setdefault(model, _Known())
        async with known.lock:
            if time.monotonic() - known.read_at > _FRESH_SECS:
                try:
                    known.shards = await read_model(self._store, model)
                except StoreUnavailable:
                    known.shards = ()
                known.read_at, known.until_place = time.monotonic(), {}
            return known
