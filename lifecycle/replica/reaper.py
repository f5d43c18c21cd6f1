"""The reaper: every replica runs one, none is the leader. It buries the dead, draws the consequences, and ends what is
overdue. Each step is idempotent, so reapers may work side by side or die half-way.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.store.results import ExpiredReplica, Roster
from lifecycle.store.transitions import Store
from lifecycle.types import Role

log = logging.getLogger(__name__)

_CALLS = 1000  # of reap or sweep in one round at most; the next round goes on


class Reaper:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        while True:
            # A little jitter keeps the replicas' sweeps apart.
            await asyncio.sleep(self._store.settings.sweep_secs * random.uniform(0.8, 1.0))
            try:
                await self.sweep()
            except StoreError as failure:
                tasks.check_cancelled()
                log.debug("sweep put off: %s", failure)
            except RedisError:
                log.exception("sweep refused")

    async def sweep(self, leaving: str = "") -> None:
        """One round. With `leaving`, that replica says goodbye: it is buried whatever its lease."""
        pending_cleanup = await self._store.expire(leaving)
        roster = await self._store.roster()
        for grave in pending_cleanup:
            new_owners = [r.id for r in roster.replicas if r.role == Role.FRONTEND and r.id != grave.replica]
            grave = grave._replace(models=grave.models or sorted(roster.models))
            if all(await self._in_every_shard(partial(self._reap, grave, new_owners))):
                await self._store.finish_cleanup(grave.replica)
        unserved, models = self._unserved(roster), sorted(roster.models)
        await self._in_every_shard(partial(self._sweep, unserved, models))

    async def _in_every_shard(self, work: Callable[[int], Awaitable[bool]]) -> list[bool]:
        """Side by side: a shard that is away keeps no other waiting. Its work is not done, and comes again."""
        shards = range(self._store.settings.shards)
        outcomes = await asyncio.gather(*(work(shard) for shard in shards), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreError):
                raise outcome
        return [outcome is True for outcome in outcomes]

    async def _reap(self, grave: ExpiredReplica, new_owners: list[str], shard: int) -> bool:
        """Whether nothing is left of it in this shard."""
        for _ in range(_CALLS):
            reaped = await self._store.reap(shard, grave, new_owners)
            if reaped.ended or reaped.moved:
                log.warning(
                    "%s %s is gone: %d requests ended, %d go on elsewhere",
                    grave.role,
                    grave.replica,
                    reaped.ended,
                    reaped.moved,
                )
            if reaped.done or not (reaped.ended or reaped.moved):
                return reaped.done
        return False

    async def _sweep(self, unserved: list[str], models: list[str], shard: int) -> bool:
        for _ in range(_CALLS):
            _, more = await self._store.sweep(shard, unserved, models)
            if not more:
                return True
        return False

    def _unserved(self, roster: Roster) -> list[str]:
        """Known models without a sign of a live worker for one lease. Nobody is judged during a grace."""
        settings = self._store.settings
        if settings.queue_without_workers or roster.grace:
            return []
        return [m for m, served_at in roster.models.items() if roster.now - served_at > settings.lease_secs]
