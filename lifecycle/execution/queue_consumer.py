"""Take deliveries from one shard's queues, as many as the worker has free concurrency slots."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis.exceptions import RedisError, ResponseError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.ids import is_request_id
from lifecycle.replica.lease import Lease
from lifecycle.store.redis import BLOCK_MS, Commands
from lifecycle.store.transitions import Store

log = logging.getLogger(__name__)

GROUP = "workers"
"""The name of the consumer group that all workers share on each queue."""

_QUEUES = ("retry", "queue")  # in the order in which they are read
_BATCH = 32  # entries in one read at most
_MAX_PAUSE_SECS = 1.0
_POLL_TIMEOUT_SECS = 0.25


class Delivery(NamedTuple):
    """Name one entry of a queue that Redis has handed to this worker.

    `queue` is "queue" or "retry", each of which exists for each model; `entry` is the entry's id in that stream.
    """

    rid: str
    queue: str
    entry: str
    model: str


class QueueConsumer:
    """Read one shard's queues of all the worker's models until `run()` is cancelled; then call `release_pending()`.

    A read that is cancelled may already have been handed entries, which stay pending in this worker's name.
    """

    def __init__(
        self,
        store: Store,
        blocking: Commands,
        shard: int,
        models: Sequence[str],
        lease: Lease,
        slots: ConcurrencySlots,
        launch: Callable[[Delivery], bool],
    ) -> None:
        """Read through `blocking`, a connection of this consumer's own, while `lease` is held in the shard.

        `launch` is given a delivery for which a slot has been acquired. It returns False when the delivery is being
        handled already, and the slot is then released here.
        """
        prefix = store.keys.prefixes[shard]
        self._store = store
        self._blocking = blocking
        self._shard = shard
        self._models = models
        self._lease = lease.shards[shard]
        self._slots = slots
        self._launch = launch
        # All retry queues come first: what has waited once already does not wait behind another model's new requests.
        self._keys = {f"{prefix}{queue}:{model}": (queue, model) for queue in _QUEUES for model in models}
        # Behind which entry of each queue those that are pending in this worker's name are still to be read.
        self._pending: dict[str, str] = dict.fromkeys(self._keys, "0")
        self._recheck_at = time.monotonic() + store.settings.heartbeat_secs
        self._shards = store.settings.shards
        # Redis hands an entry to a blocked read even when its worker is frozen. The wait must end before the lease
        # does: an entry that is handed over after the reaper's visit would belong to nobody.
        self._block_ms = max(1, min(BLOCK_MS, int(store.settings.lease_secs * 1000 / 4)))

    async def run(self) -> None:
        """Take deliveries until cancelled. Errors of Redis are logged, and the read is repeated after a pause."""
        pause = 0.0
        while True:
            tasks.check_cancelled()
            await self._lease.joined.wait()
            await self._slots.wait_available()
            try:
                if time.monotonic() >= self._recheck_at:
                    self.recheck()
                if self._pending:
                    await self._take(await self._read_pending(self._batch()))
                elif not await self._poll():
                    await self._take(await self._block())
                pause = 0.0
                continue
            except ResponseError as failure:
                if str(failure).startswith("NOGROUP"):
                    with suppress(RedisError, StoreError):
                        await self.open_queues()
                else:
                    log.warning(
                        "reading the queues of model %s failed and is repeated: %s", ", ".join(self._models), failure
                    )
            except (RedisError, StoreError, TimeoutError) as failure:
                log.debug("reading the queues of model %s failed and is repeated: %s", ", ".join(self._models), failure)
            tasks.check_cancelled()
            self.recheck()
            pause = min(pause * 2 + 0.02, _MAX_PAUSE_SECS)
            await asyncio.sleep(pause)

    def recheck(self) -> None:
        """Read all pending entries again: one of them could not be started.

        It is also done once a heartbeat: no entry waits longer beside a free slot, whatever became of its start.
        """
        self._pending = dict.fromkeys(self._keys, "0")
        self._recheck_at = time.monotonic() + self._store.settings.heartbeat_secs

    async def release_pending(self) -> None:
        """Requeue the entries that were delivered to this worker and not started.

        Raise RedisError or StoreError when Redis does not do it; the reaper requeues them later.
        """
        self.recheck()
        while self._pending:
            for delivery in await self._read_pending(_BATCH):
                await self._requeue(delivery)

    async def _poll(self) -> bool:
        """Poll the queues when few slots are free. Return whether anything was taken or no slot is left.

        With few free slots, reads that block on every queue at once would be handed more entries than there are slots,
        again and again. So each queue is polled without blocking, one after the other, and by one shard's consumer at
        a time. Only when nothing is queued do all consumers block together.
        """
        if self._slots.free >= len(self._keys) * self._shards:
            return False
        taken = 0
        async with self._slots.polling:
            for key in self._keys:
                if self._slots.free > 0:
                    async with asyncio.timeout(_POLL_TIMEOUT_SECS):  # a shard that hangs must not keep the lock
                        deliveries = await self._read((key,), min(_BATCH, self._slots.free), None)
                    taken += len(deliveries)
                    await self._take(deliveries)
        return taken > 0 or self._slots.free == 0

    async def _block(self) -> list[Delivery]:
        """Wait for entries in all queues."""
        return await self._read(tuple(self._keys), self._batch(), self._block_ms)

    def _batch(self) -> int:
        """Return how many entries to ask each queue for: so few that they fit even if every shard delivers as many."""
        return max(1, min(_BATCH, self._slots.free // (len(self._keys) * self._shards)))

    async def _read(self, keys: Sequence[str], count: int, block_ms: int | None) -> list[Delivery]:
        """Return new deliveries, at most `count` of each queue.

        `block_ms` is the longest wait for one; None does not wait.
        """
        block = () if block_ms is None else ("BLOCK", block_ms)
        return await self._deliveries_of(
            await self._blocking.execute(
                *("XREADGROUP", "GROUP", GROUP, self._lease.id, "COUNT", count),
                *(*block, "STREAMS", *keys, *(">" for _ in keys)),
            )
        )

    async def _read_pending(self, count: int) -> list[Delivery]:
        """Return the next deliveries that are pending in this worker's name, at most `count` of each queue.

        A queue that has no more of them is left out afterwards, until the next recheck.
        """
        asked = self._pending
        reply: Any = await self._blocking.execute(
            *("XREADGROUP", "GROUP", GROUP, self._lease.id, "COUNT", count),
            *("STREAMS", *asked, *asked.values()),
        )
        deliveries = await self._deliveries_of(reply)
        if self._pending is asked:  # else a recheck has begun anew meanwhile
            self._pending = {key.decode(): entries[-1][0].decode() for key, entries in reply or () if entries}
        return deliveries

    async def _deliveries_of(self, reply: Any) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for key, entries in reply or ():
            for entry, flat in entries:
                values = dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}
                rid = values.get(b"rid", b"").decode(errors="replace")
                if is_request_id(rid):
                    queue, model = self._keys[key.decode()]
                    deliveries.append(Delivery(rid, queue, entry.decode(), model))
                else:
                    await self._remove(key, entry, values)
        return deliveries

    async def _remove(self, key: bytes, entry: bytes, values: dict[bytes, bytes]) -> None:
        """Remove an entry without a valid request id.

        No frontend has queued it; or it has no values, because it was deleted while it was pending.
        """
        if values:
            log.error(
                "entry %s of %s has no valid request id and is removed; no frontend writes such an entry: %.200r",
                entry.decode(),
                key.decode(),
                values,
            )
        await self._store.command("XACK", key, GROUP, entry)
        await self._store.command("XDEL", key, entry)

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        """Launch the deliveries; requeue those for which no slot is free."""
        for delivery in deliveries:
            if not self._slots.try_acquire():
                await self._requeue(delivery)  # two queues delivered at once; another worker may have a free slot
            elif not self._launch(delivery):
                self._slots.release()

    async def _requeue(self, delivery: Delivery) -> None:
        await self._store.requeue(
            delivery.rid,
            self._lease.id,
            queue=delivery.queue,
            entry=delivery.entry,
            retry_for_secs=self._store.settings.lease_secs,
        )

    async def open_queues(self) -> None:
        """Make the queues of this consumer's models, also if Redis has lost them, or its memory is full.

        Raise RedisError or StoreError when Redis does not do it.
        """
        await self._store.open_queues(self._shard, self._models)
