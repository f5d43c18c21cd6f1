"""The reaper, which expires replicas, cleans up after them, and ends requests that are past a limit.

Every replica has one, and none is the leader. When a sweep is due, the first replica to send a heartbeat is told to do
it, so that the cost does not grow with the number of replicas. Each step may be repeated, so several reapers may work
at the same time, and one may fail half-way: the next sweep is another one's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.store.membership import MODELS_PAGE
from lifecycle.store.results import ExpiredReplica, Renewal, Roster, UnservedModel
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import by_model, outage_of, workers_of
from lifecycle.types import Role

log = logging.getLogger(__name__)

_CALLS_LIMIT = 10_000  # calls of reap or sweep in one round and shard; the next round continues


class _Work(NamedTuple):
    """Hold what one round does in each shard."""

    expired: list[ExpiredReplica]
    frontends: list[str]  # that live
    unserved: list[UnservedModel]
    models: list[str]


class Reaper:
    """The reaper of one replica."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due = asyncio.Event()

    def on_renewed(self, renewal: Renewal) -> None:
        """Let `run` sweep when the heartbeat has found that a sweep is due."""
        if renewal.sweep:
            self._due.set()

    async def run(self) -> None:
        """Sweep whenever this replica is told to, until cancelled. Errors of Redis are logged."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self.sweep()
            except StoreError as failure:
                tasks.check_cancelled()
                log.debug("A sweep failed and is repeated in the next round: %s", failure)
            except RedisError:
                log.exception("Redis refused a command of a sweep")

    async def sweep(self, leaving: str = "") -> None:
        """Do one round. `leaving` is a replica that leaves the cluster now: it expires whatever its lease.

        Raises StoreUnavailable when the control keys cannot be reached. A shard that is unavailable is left to the next
        round. Raises RedisError when Redis refuses a command.
        """
        work = await self._find_work(leaving)
        shards = range(self._store.settings.shards)
        outcomes = await asyncio.gather(*(self._clean(work, shard) for shard in shards), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreError):
                raise outcome
        for expired in work.expired:
            if all(not isinstance(done, BaseException) and expired.replica in done for done in outcomes):
                await self._store.finish_cleanup(expired.replica)

    async def _find_work(self, leaving: str) -> _Work:
        expired = await self._store.expire(leaving)
        roster = await self._store.roster()
        models = sorted(roster.models)
        return _Work(
            [replica._replace(models=replica.models or models) for replica in expired],
            [replica.id for replica in roster.replicas if replica.role == Role.FRONTEND],
            self._unserved(roster),
            models,
        )

    async def _clean(self, work: _Work, shard: int) -> set[str]:
        """Do all work of one shard, and return the expired replicas of which nothing is left there.

        No shard waits for another, and one that is unavailable costs the time of one call, however many replicas have
        expired.
        """
        done: set[str] = set()
        for expired in work.expired:
            new_owners = [frontend for frontend in work.frontends if frontend != expired.replica]
            if await self._reap(expired, new_owners, shard):
                done.add(expired.replica)
        await self._sweep(work.unserved, work.models, shard)
        return done

    async def _reap(self, expired: ExpiredReplica, new_owners: list[str], shard: int) -> bool:
        """Clean up after a replica in one shard; return whether nothing is left to do there."""
        for _ in range(_CALLS_LIMIT):
            reaped = await self._store.reap(shard, expired, new_owners)
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

    async def _sweep(self, unserved: list[UnservedModel], models: list[str], shard: int) -> bool:
        """End what is due in one shard; return whether nothing is left to do there."""
        calls = 0
        for begin in range(0, max(len(models), len(unserved), 1), MODELS_PAGE):
            page = slice(begin, begin + MODELS_PAGE)
            more = True
            while more:
                _, more = await self._store.sweep(shard, unserved[page], models[page])
                calls += 1
                if more and calls >= _CALLS_LIMIT:
                    return False
        return True

    def _unserved(self, roster: Roster) -> list[UnservedModel]:
        """Return the models whose queued requests nobody can serve; none during a grace.

        They are the models of which every living worker is unhealthy, and those that no living worker has served for
        one lease.
        """
        settings = self._store.settings
        if roster.grace:
            return []
        serving = by_model(workers_of(roster, settings.lease_secs))
        unserved = [
            UnservedModel(model, outage.message, outage.detail)
            for model, workers in serving.items()
            if (outage := outage_of(workers)) is not None
        ]
        if not settings.queue_without_workers:
            oldest = roster.now - settings.lease_secs
            unserved += [UnservedModel(model) for model, served_at in roster.models.items() if served_at < oldest]
        return unserved
