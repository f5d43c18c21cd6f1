"""A bound in time for waiting on somebody else, which the event loop's own lateness does not use up.

When the loop was blocked, or is busy beyond its means, an ordinary timeout fires although the answer is in the socket.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

_TICKS = 8  # into which the time is divided; a late one counts as one


class Patience:
    """`async with Patience(2.0):` raises TimeoutError at its end once so many seconds were spent waiting."""

    __slots__ = ("_left_secs", "_limit_secs", "_loop", "_scope", "_tick_secs", "_ticked_at", "_timer")

    def __init__(self, limit_secs: float) -> None:
        self._limit_secs = self._left_secs = limit_secs
        self._tick_secs = limit_secs / _TICKS
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)

    def renew(self) -> None:
        """Something has come: the time begins anew."""
        self._left_secs = self._limit_secs

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, failure, trace)

    def _wait(self) -> None:
        self._ticked_at = self._loop.time()
        self._timer = self._loop.call_later(self._tick_secs, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        self._left_secs -= min(now - self._ticked_at, self._tick_secs)
        if self._left_secs > 1e-6:
            self._wait()
        else:
            self._scope.reschedule(now)
