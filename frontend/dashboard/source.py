"""One thing that many look at: taken anew by whoever asks first once it is due, and shared by all others.

So there is no poller that somebody must own: while nobody looks, nothing is asked of Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from frontend.dashboard.picture import Picture
from lifecycle.errors import StoreError

PERIOD_SECS = 1.0
_REST = 20.0  # how many times as long as it took a source rests: what is dear is taken less often


class Source:
    """`take` makes the next picture from the last one."""

    def __init__(self, take: Callable[[Picture | None], Awaitable[Picture]]) -> None:
        self._take = take
        self._lock = asyncio.Lock()
        self._picture: Picture | None = None
        self._failure: StoreError | None = None
        self.due_at = float("-inf")

    async def look(self) -> Picture:
        """No older than a period, or than it may be. Raises StoreError, the same to all who ask within a period."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            began_at = clock()
            if began_at >= self.due_at:
                try:
                    self._picture, self._failure = await self._take(self._picture), None
                    rest_secs = _REST * (clock() - began_at)
                except StoreError as failure:
                    self._failure, rest_secs = failure, 0.0
                self.due_at = max(began_at + PERIOD_SECS, clock() + rest_secs)
            if self._failure is not None:
                raise self._failure
            assert self._picture is not None
            return self._picture
