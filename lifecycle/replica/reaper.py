"""The reaper, which expires replicas, cleans up after them, and ends requests that are past a limit.

Every replica has one, and none is the leader. When a sweep of a shard is due, the first replica to reconcile that shard
is told to do it, so that the cost does not grow with the number of replicas. Each step may be repeated, so several
reapers may work at the same time, and one may fail half-way: the next sweep is another one's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.replica.parent_checks import ParentChecks
from lifecycle.replica.unserved_requests import UnservedRequests
from lifecycle.store.membership import EXPIRE_LIMIT, MODELS_PAGE
from lifecycle.store.results import ExpiredReplica, UnservedModel
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import LivingWorker, by_model, outage_of, workers_of

log = logging.getLogger(__name__)

_CALLS_LIMIT = 10_000  # calls of one script in one sweep of a shard; the next sweep continues


class Reaper:
    """The reaper of one replica."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parents = ParentChecks(store)
        self._unserved = UnservedRequests(store)
        self._due: set[int] = set()  # the shards that this replica is to sweep
        self._woken = asyncio.Event()
        self._workers: list[LivingWorker] | None = None
        self._workers_until = float("-inf")
        self._reading = asyncio.Lock()

    def sweep_soon(self, shard: int) -> None:
        """Let `run` sweep a shard."""
        self._due.add(shard)
        self._woken.set()

    async def run(self) -> None:
        """Sweep the shards that this replica is told to sweep, until cancelled. Errors of Redis are logged.

        No shard waits for another.
        """
        sweeping: set[int] = set()

        async def sweep(shard: int) -> None:
            try:
                await self.sweep(shard)
            except StoreError as failure:
                tasks.check_cancelled()
                log.debug("A sweep of shard %d failed and is left to the next one: %s", shard, failure)
            except RedisError:
                log.exception("Redis refused a command of a sweep of shard %d", shard)
            finally:
                sweeping.discard(shard)

        async with asyncio.TaskGroup() as group:
            while True:
                await self._woken.wait()
                self._woken.clear()
                begun = self._due - sweeping
                self._due.clear()
                sweeping |= begun
                for shard in begun:
                    group.create_task(sweep(shard), name=f"sweep of shard {shard}")

    async def sweep(self, shard: int, leaving: str = "") -> None:
        """Do all that is to be done in one shard. `leaving` is a replica that expires there now, whatever its lease.

        Raises StoreUnavailable, and RedisError when Redis refuses a command.
        """
        for _ in range(_CALLS_LIMIT):
            found = await self._store.expire(shard, leaving)
            done = [await self._reap(expired, shard) for expired in found]
            if len(found) < EXPIRE_LIMIT or not any(done):
                break
        workers = await self._find_workers()
        await self._end_due(_outages_of(workers or ()), shard)
        if workers is not None:
            await self._unserved.check(shard, workers)
        await self._parents.check_due(shard)

    async def _reap(self, expired: ExpiredReplica, shard: int) -> bool:
        """Clean up after a replica in one shard; return whether nothing is left to do there."""
        for _ in range(_CALLS_LIMIT):
            reaped = await self._store.reap(shard, expired)
            if reaped.ended or reaped.moved:
                log.warning(
                    "%s %s has expired or left: %d of its requests ended, %d continue elsewhere",
                    expired.role,
                    expired.replica,
                    reaped.ended,
                    reaped.moved,
                )
            if reaped.done or not (reaped.ended or reaped.moved):
                return reaped.done
        return False

    async def _end_due(self, outages: Sequence[UnservedModel], shard: int) -> None:
        """End what is due in one shard."""
        first_model, begin = 0, 0
        for _ in range(_CALLS_LIMIT):
            swept = await self._store.sweep(shard, outages[begin : begin + MODELS_PAGE], first_model)
            if swept.more:
                continue
            first_model, begin = swept.next_model, begin + MODELS_PAGE
            if not first_model and begin >= len(outages):
                return

    async def _find_workers(self) -> list[LivingWorker] | None:
        """Return the living workers; None when the list of them cannot be read, or may be incomplete.

        It is read once for all sweeps of an interval.
        """
        async with self._reading:
            if time.monotonic() >= self._workers_until:
                self._workers = await self._read_workers()
                self._workers_until = time.monotonic() + self._store.settings.sweep_secs / 2
            return self._workers

    async def _read_workers(self) -> list[LivingWorker] | None:
        try:
            roster = await self._store.listed()
        except StoreError as failure:
            tasks.check_cancelled()
            log.debug("The list of workers cannot be read for a sweep: %s", failure)
            return None
        return None if roster.grace else workers_of(roster, self._store.settings.lease_secs)


def _outages_of(workers: Collection[LivingWorker]) -> list[UnservedModel]:
    """Return the models whose listed workers are all unhealthy."""
    return [
        UnservedModel(model, outage.message, outage.detail)
        for model, serving in by_model(workers).items()
        if (outage := outage_of(serving)) is not None
    ]
