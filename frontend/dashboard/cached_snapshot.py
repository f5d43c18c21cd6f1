"""Share one snapshot among all viewers: the first one to ask after it is due refreshes it.

No background task is needed, and Redis is not asked while nobody views the dashboard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from frontend.dashboard.snapshot import Snapshot
from lifecycle.errors import StoreError

PERIOD_SECS = 1.0
_REST_FACTOR = 20.0  # after a refresh that took t seconds the next is due 20 t later, so expensive ones are rarer


class CachedSnapshot:
    """Keep the latest snapshot. `refresh` makes the next one from the previous one, None at first."""

    def __init__(self, refresh: Callable[[Snapshot | None], Awaitable[Snapshot]]) -> None:
        self._refresh = refresh
        self._lock = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        self._failure: StoreError | None = None
        self.due_at = float("-inf")  # by the event loop's clock

    async def get(self) -> Snapshot:
        """Return the snapshot, refreshed if it is due.

        Raises StoreError; all who ask until the next refresh is due get the same one.
        """
        clock = asyncio.get_running_loop().time
        async with self._lock:
            began_at = clock()
            if began_at >= self.due_at:
                try:
                    self._snapshot, self._failure = await self._refresh(self._snapshot), None
                    rest_secs = _REST_FACTOR * (clock() - began_at)
                except StoreError as failure:
                    self._failure, rest_secs = failure, 0.0
                self.due_at = max(began_at + PERIOD_SECS, clock() + rest_secs)
            if self._failure is not None:
                raise self._failure
            assert self._snapshot is not None
            return self._snapshot
