"""Takes deliveries from one shard's queues, as many as the worker has free slots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis.exceptions import RedisError, ResponseError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.ids import is_request_id
from lifecycle.store.redis import BLOCK_MS, Commands
from lifecycle.store.scripts import Store

log = logging.getLogger(__name__)

GROUP = "workers"
_QUEUES = ("retry", "queue")  # in this order
_BATCH = 32
_LONGEST_PAUSE_SECS = 1.0
_TURN_SECS = 0.25


class Delivery(NamedTuple):
    rid: str
    queue: str
    entry: str


class QueueConsumer:
    """`run()` until cancelled, then `release_pending()`: a cancelled read may have parked entries in our name."""

    def __init__(
        self,
        store: Store,
        blocking: Commands,
        shard: int,
        model: str,
        worker: str,
        slots: ConcurrencySlots,
        launch: Callable[[Delivery], bool],
    ) -> None:
        """`launch` takes a delivery that holds a slot; False when it is already being handled."""
        prefix = store.keys.prefixes[shard]
        self._store = store
        self._blocking = blocking
        self._model = model
        self._worker = worker
        self._slots = slots
        self._launch = launch
        self._keys = {f"{prefix}{queue}:{model}": queue for queue in _QUEUES}
        self._pending = True  # what is pending in our name is read before anything new
        self._shards = store.settings.shards
        # Redis hands work to a read that waits, even when its worker stands still: the wait must end before the lease
        # does, or what is handed over after the reaper has been here is nobody's.
        self._block_ms = max(1, min(BLOCK_MS, int(store.settings.lease_secs * 1000 / 4)))

    async def run(self) -> None:
        pause = 0.0
        while True:
            tasks.check_cancelled()
            await self._slots.wait_available()
            try:
                if self._pending or not await self._take_in_turn():
                    await self._take(await self._wait_for_more())
                pause = 0.0
                continue
            except ResponseError as failure:
                if str(failure).startswith("NOGROUP"):
                    with suppress(RedisError, StoreError):
                        await self.create_groups()
                else:
                    log.warning("taking requests failed: %s", failure)
            except (RedisError, StoreError, TimeoutError) as failure:
                log.debug("taking requests failed: %s", failure)
            tasks.check_cancelled()
            self._pending = True
            pause = min(pause * 2 + 0.02, _LONGEST_PAUSE_SECS)
            await asyncio.sleep(pause)

    def recheck(self) -> None:
        """A delivery could not be started: it is still pending in our name, and is read again."""
        self._pending = True

    async def release_pending(self) -> None:
        """Requeue what was delivered to us and not started."""
        self._pending = True
        for delivery in await self._read(tuple(self._keys), _BATCH, None):
            await self._requeue(delivery)

    async def _take_in_turn(self) -> bool:
        """Whether anything was taken. With few free slots, reads that wait on every queue would be handed more than
        fits, over and over. So each queue is looked at without waiting, one after the other, in one shard at a time;
        only when nothing is queued do all wait together.
        """
        if self._slots.free >= len(self._keys) * self._shards:
            return False
        taken = 0
        async with self._slots.polling:
            for key in self._keys:
                if self._slots.free > 0:
                    async with asyncio.timeout(_TURN_SECS):  # a shard that hangs must not keep the turn
                        deliveries = await self._read((key,), min(_BATCH, self._slots.free), None)
                    taken += len(deliveries)
                    await self._take(deliveries)
        return taken > 0 or self._slots.free == 0

    async def _wait_for_more(self) -> list[Delivery]:
        """From all queues, no more than fits if every shard is handed as much."""
        share = self._slots.free // (len(self._keys) * self._shards)
        return await self._read(tuple(self._keys), max(1, min(_BATCH, share)), self._block_ms)

    async def _read(self, keys: Sequence[str], count: int, block_ms: int | None) -> list[Delivery]:
        """New deliveries; after a start or an error first those that are pending in our name. None: do not wait."""
        pending = self._pending and len(keys) == len(self._keys)
        if pending:
            self._pending = False
        start = "0" if pending else ">"
        block = () if pending or block_ms is None else ("BLOCK", block_ms)
        reply: Any = await self._blocking.execute(
            "XREADGROUP", "GROUP", GROUP, self._worker, "COUNT", count, *block, "STREAMS", *keys, *(start for _ in keys)
        )
        deliveries: list[Delivery] = []
        for key, entries in reply or ():
            for entry, flat in entries:
                values = dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}
                rid = values.get(b"rid", b"").decode(errors="replace")
                if is_request_id(rid):
                    deliveries.append(Delivery(rid, self._keys[key.decode()], entry.decode()))
                else:
                    await self._remove(key, entry, values)
        return deliveries

    async def _remove(self, key: bytes, entry: bytes, values: dict[bytes, bytes]) -> None:
        """Nothing that a frontend queued; or an entry that was deleted while it was pending, which has no values."""
        if values:
            log.error("entry %s of %s names no request and is removed: %.200r", entry.decode(), key.decode(), values)
        await self._store.command("XACK", key, GROUP, entry)
        await self._store.command("XDEL", key, entry)

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if not self._slots.try_acquire():
                await self._requeue(delivery)  # two queues answered at once: another worker may have room
            elif not self._launch(delivery):
                self._slots.release()

    async def _requeue(self, delivery: Delivery) -> None:
        await self._store.requeue(
            delivery.rid,
            self._worker,
            queue=delivery.queue,
            entry=delivery.entry,
            retry_for_secs=self._store.settings.lease_secs,
        )

    async def create_groups(self) -> None:
        """From 0: after Redis lost its data, what was queued since must not be passed over."""
        for key in self._keys:
            try:
                await self._blocking.execute("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM")
            except ResponseError as failure:
                if not str(failure).startswith("BUSYGROUP"):
                    raise
