"""Correct what a worker and Redis know differently of the requests that run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.execution.outcomes import CANCELLED
from lifecycle.execution.running import RunningRequests
from lifecycle.replica.lease import Lease
from lifecycle.store.results import PendingCancellation
from lifecycle.store.transitions import Store

log = logging.getLogger(__name__)


class Corrections:
    """Correct the differences that a heartbeat has found.

    Each method raises StoreUnavailable. An error of Redis about one request is logged, so that the others are dealt
    with in the same heartbeat.
    """

    def __init__(self, store: Store, lease: Lease, running: RunningRequests) -> None:
        """`running` has what runs in this worker, under the ids of `lease`."""
        self._store = store
        self._lease = lease
        self._running = running

    async def cancel(self, cancellations: Sequence[PendingCancellation]) -> None:
        """Cancel what runs here, and confirm the cancels of requests that do not."""
        absent: list[str] = []
        for cancellation in cancellations:
            attempt = self._running.current(cancellation.rid)
            if attempt is not None:
                attempt.cancel(cancellation.mode)
            elif cancellation.rid not in self._running:
                absent.append(cancellation.rid)
        await self._each(self._confirm_not_running, absent)

    async def abandon(self, rids: Sequence[str]) -> None:
        """Abandon requests that Redis does not count as this worker's.

        They have ended, have moved to another worker, or were lost with the data of Redis.
        """
        attempts = {rid: attempt for rid in rids if (attempt := self._running.current(rid)) is not None}
        for attempt in attempts.values():
            attempt.abandon()
        await self._each(lambda rid: self._running.report_lost_start(attempts[rid]), list(attempts))

    async def report_ends(self, shard: int) -> None:
        """Let the writer check the streams before it appends, and report ends again that the shard may have lost."""
        self._running.check_streams(shard)
        ends = self._running.ends
        await self._each(ends.check, ends.of_shard(shard))

    async def requeue(self, rids: Sequence[str]) -> None:
        """Requeue requests that Redis counts as this worker's although they do not run here.

        The reply to their take was lost. If they have ended here, Redis has lost the end, which is reported again.
        """
        await self._each(self._requeue_or_end, rids)

    async def _confirm_not_running(self, rid: str) -> None:
        """Report the request as cancelled, which confirms the cancel and removes it from the pending cancellations."""
        record = await self._store.read(rid)
        attempt = record.attempt if record is not None else 0
        await self._store.finish(rid, self._lease.id_for(rid), attempt, CANCELLED, 0)

    async def _requeue_or_end(self, rid: str) -> None:
        if rid in self._running:
            return
        record = await self._store.read(rid)
        if rid in self._running:  # it was taken while this was read
            return
        if await self._running.ends.report_again(rid, record) is None:
            attempt = record.attempt if record is not None else 0
            await self._store.requeue(rid, self._lease.id_for(rid), attempt)

    async def _each(self, correct: Callable[[str], Awaitable[object]], rids: Sequence[str]) -> None:
        async def isolated(rid: str) -> None:
            try:
                await correct(rid)
            except RedisError:
                log.exception("the state of request %s could not be corrected; the next heartbeat tries again", rid)

        await tasks.in_batches(isolated, rids)
