"""Take requests from one shard's queues, as many as the worker has free concurrency slots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreError
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.execution.running import RunningRequests
from lifecycle.ids import new_start_nonce
from lifecycle.replica.shard_lease import ShardLease
from lifecycle.store.queues import TAKE_LIMIT
from lifecycle.store.results import Run, Taken
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode

log = logging.getLogger(__name__)

_MAX_PAUSE_SECS = 1.0
_RESERVED_SECS = 0.25  # for which a shard that does not answer keeps slots from the others


class _Take(NamedTuple):
    """Name one take. It is repeated under this name until Redis has answered, since it may have been executed."""

    worker: str
    number: int
    nonce: str


class QueueConsumer:
    """Take from one shard's queues of all the worker's models until `run()` is cancelled; then call `release()`.

    Taking a request starts it. After a take that has left nothing, the worker waits for a bell: a message that Redis
    publishes to one waiting worker for each request that is queued. A bell may be lost, so a heartbeat also says
    whether something is queued.

    With preemption a worker without a free slot waits too, under the worst priority that it runs. It is rung for a
    better request, and takes that in place of one that it runs.
    """

    def __init__(
        self,
        store: Store,
        shard: int,
        models: Sequence[str],
        lease: ShardLease,
        slots: ConcurrencySlots,
        running: RunningRequests,
    ) -> None:
        """Take from `shard` under the ids of `lease`; `running` runs what was taken, each in one of the `slots`."""
        self._store = store
        self._shard = shard
        self._models = list(models)
        self._lease = lease
        self._slots = slots
        self._running = running
        self._preemption = running.preemption
        self._gives_up: int | None = None  # the priority under which this worker waits without a free slot
        self._due = asyncio.Event()  # something may be queued, or this worker does not wait for a bell
        self._due.set()
        self._rung = False  # since the last take was sent
        self._number = 0
        self._take: _Take | None = None  # of which no answer has come yet
        self._call: asyncio.Task[Taken] | None = None
        self._cancels: dict[str, set[CancelMode]] = {}  # by request id, that came since the take was first sent
        lease.on_queued = self.ring

    def ring(self) -> None:
        """Take soon: something is queued, or this worker may not wait for a bell any more."""
        self._rung = True
        self._due.set()
        self._preemption.wake()

    def cancel(self, rid: str, mode: CancelMode) -> None:
        """Note a cancel, which may come before the answer of the take that has started its request.

        Without a take it is of no use: Redis tells every later take of the request that it is cancelled.
        """
        if self._take is not None:
            self._cancels.setdefault(rid, set()).add(mode)

    async def run(self) -> None:
        """Take requests until cancelled. Errors of Redis are logged, and the take is repeated after a pause."""
        pause = 0.0
        while True:
            tasks.check_cancelled()
            await self._due.wait()
            await self._lease.joined.wait()
            if self._lease.forbidden:  # what it took could not be answered
                await asyncio.sleep(_MAX_PAUSE_SECS)
                continue
            if not self._has_turn():
                await self._preemption.wait_changed()
                continue
            try:
                await self._take_next()
            except Fenced as failure:
                log.warning("no request was taken: %s", failure)
                self._take = None
                self._lease.waits, self._gives_up = False, None
            except (RedisError, StoreError) as failure:
                log.debug("taking requests of model %s failed and is repeated: %s", ", ".join(self._models), failure)
            else:
                pause = 0.0
                continue
            tasks.check_cancelled()
            pause = min(pause * 2 + 0.02, _MAX_PAUSE_SECS)
            await asyncio.sleep(pause)

    async def release(self) -> None:
        """Give back what a take brings whose answer is still to come, and wait for no bell any more.

        Raise RedisError, StoreError or Fenced when Redis does not do it; the reaper does it later.
        """
        take = self._take
        if take is not None:
            taken = await (self._call or self._ask(take, 0))
            for run in taken.runs:
                await self._running.give_back(run, take.worker)
        await self._ask(self._next_take(), 0)

    async def aclose(self) -> None:
        """End what is under way."""
        if self._call is not None:
            await tasks.end((self._call,))

    def _has_turn(self) -> bool:
        """Return whether a take is due now that something may be queued."""
        if self._slots.free or self._take is not None:  # an unanswered one may have runs
            return True
        worst = self._preemption.worst
        if worst is None:
            return self._lease.waits and (self._gives_up is None or self._rung)
        return worst != self._gives_up or (self._rung and self._preemption.can_ask)

    async def _take_next(self) -> None:
        """Take once, and launch what was taken. With no free slot, let another waiting worker be rung instead."""
        if self._take is not None and self._take.worker != self._lease.id:
            self._take = None  # the lease under which it was sent has expired
        is_repeated = self._take is not None
        take = self._take = self._take or self._next_take()
        was_rung, self._rung = self._rung, False
        share = max(1, self._slots.free // self._store.settings.shards)  # several shards may have some
        reserved = self._slots.reserve(min(TAKE_LIMIT, share))
        slots = reserved
        # Without a free slot it begins to wait under the worst priority that it runs. It asks for a better request when
        # it is rung while it waits so.
        gives_up = self._preemption.worst if not reserved else None
        asks = was_rung and gives_up is not None and gives_up == self._gives_up and self._preemption.can_ask
        if asks:
            slots, gives_up = 1, self._preemption.begin_asking()
        try:
            self._call = asyncio.create_task(self._ask(take, slots, gives_up), name="take")
            await asyncio.wait((self._call,), timeout=_RESERVED_SECS)
            if not self._call.done():
                self._slots.unreserve(reserved)
                reserved = 0
                await asyncio.wait((self._call,))
            call, self._call = self._call, None
            taken = call.result()
            self._take = None
            unplaced: list[Run] = []
            for run in taken.runs:
                moved = None
                reserved = reserved or self._slots.reserve(1)
                if reserved:
                    self._slots.occupy_reserved()
                    reserved -= 1
                elif (moved := self._preemption.choose(run.start.priority)) is not None:
                    self._slots.occupy_next()
                else:
                    unplaced.append(run)
                    continue
                self._running.launch(run, take.worker, moved, self._cancels.get(run.rid, set()))
        finally:
            self._slots.unreserve(reserved)
            if asks:
                self._preemption.end_asking()
        left_nothing = taken.waits and not is_repeated  # a repetition does not tell what was left
        self._lease.waits = taken.waits or is_repeated
        self._gives_up = gives_up if left_nothing else None
        if left_nothing and gives_up is None and not self._rung:  # with `gives_up`, what is not better is left
            self._due.clear()
        for run in unplaced:
            await self._running.give_back(run, take.worker)
        if taken.unsupported:
            await self._running.hand_over.ring_or_fail(taken.unsupported, take.worker)

    def _next_take(self) -> _Take:
        self._number += 1
        self._cancels.clear()
        self._models.append(self._models.pop(0))  # so that each model comes first in turn
        return _Take(self._lease.id, self._number, new_start_nonce())

    async def _ask(self, take: _Take, slots: int, gives_up: int | None = None) -> Taken:
        """Send a take. It brings nothing when a later one was executed before."""
        offer = self._running.offer()
        taken = await self._store.take(self._shard, *take, self._models, slots, offer, gives_up=gives_up)
        return taken or Taken([], [], waits=False)
