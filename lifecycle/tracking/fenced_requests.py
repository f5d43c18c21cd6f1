"""Decide who counts the requests that a frontend held when it was fenced.

Their streams have ended here. The reaper gives some of them to a new owner, which counts their end, and ends the others
as `frontend_lost`, which nobody else counts. So each is counted here only once its record says that it ended under this
frontend, or that Redis has lost it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.ids import replica_of
from lifecycle.store.transitions import Store
from lifecycle.tracking.monitor import StreamMonitor
from lifecycle.types import ErrorType, RequestRecord

_LEASES = 4  # after which a request that nobody has reaped is counted as an error


class FencedRequests:
    """The requests that were broken off under one id of a frontend."""

    def __init__(
        self,
        store: Store,
        frontend: str,
        monitors: Sequence[StreamMonitor],
        error_type: ErrorType,
        is_owned: Callable[[str], bool],
        on_counted: Callable[[str], None],
    ) -> None:
        """`frontend` is the id that was fenced, and `error_type` is what their clients were told.

        `is_owned` returns whether this frontend has taken a request over under its next id, and so counts its end.
        `on_counted` is called with each id that is counted here.
        """
        self._store = store
        self._frontend = frontend
        self._undecided = {monitor.rid: monitor for monitor in monitors}
        self._error_type = error_type
        self._is_owned = is_owned
        self._on_counted = on_counted

    async def settle(self) -> None:
        """Count each request or leave it to its new owner. What is undecided at the end counts as an error here."""
        settings, clock = self._store.settings, asyncio.get_running_loop().time
        until = clock() + _LEASES * settings.lease_secs
        try:
            while True:
                await tasks.in_batches(self._decide, list(self._undecided))
                if not self._undecided or clock() > until:
                    return
                tasks.check_cancelled()
                await asyncio.sleep(settings.sweep_secs)
        finally:
            for monitor in self._undecided.values():
                self._count(monitor, None, self._error_type)

    async def _decide(self, rid: str) -> None:
        """Read the record of an undecided request. One that cannot be read stays undecided."""
        with suppress(StoreError, RedisError):
            self._decide_by(rid, await self._store.read(rid))

    def _decide_by(self, rid: str, record: RequestRecord | None) -> None:
        monitor = self._undecided[rid]
        if record is None:
            self._count(monitor, None, ErrorType.STATE_LOST)
        elif self._is_owned(rid) or replica_of(record.frontend or "") != replica_of(self._frontend):
            monitor.settle_elsewhere()
        elif record.status.terminal:
            self._count(monitor, record, self._error_type)
        else:
            return  # it has not been reaped yet, or goes on under the next id of this frontend
        del self._undecided[rid]

    def _count(self, monitor: StreamMonitor, record: RequestRecord | None, error_type: ErrorType) -> None:
        monitor.settle(record, error_type)
        self._on_counted(monitor.rid)
