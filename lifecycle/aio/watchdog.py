"""A bound in time for waiting on somebody else, which the event loop's own lateness does not use up.

When the loop was blocked, or is busy beyond its means, an ordinary timeout fires although the answer is in the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

_TICKS = 8  # into which the time is divided; a late one counts as one


class Watchdog:
    """Calls `on_silent` once so many seconds were spent waiting. To begin, to renew and to rest cost no timer."""

    __slots__ = ("_left_secs", "_limit_secs", "_loop", "_on_silent", "_tick_secs", "_ticked_at", "_timer", "_waiting")

    def __init__(self, limit_secs: float, on_silent: Callable[[], None]) -> None:
        self._limit_secs = self._left_secs = limit_secs
        self._tick_secs = limit_secs / _TICKS
        self._on_silent = on_silent
        self._loop = asyncio.get_running_loop()
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Something is awaited from now on."""
        self._waiting = True
        self.renew()
        if self._timer is None:
            self._wait()

    def renew(self) -> None:
        """Something has come: the time begins anew. A tick that is under way already does not count."""
        self._left_secs = self._limit_secs + self._tick_secs

    def rest(self) -> None:
        """Nothing is awaited."""
        self._waiting = False

    def close(self) -> None:
        self._waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._ticked_at = self._loop.time()
        self._timer = self._loop.call_later(self._tick_secs, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        self._left_secs -= min(self._loop.time() - self._ticked_at, self._tick_secs)
        if self._left_secs > 1e-6:
            self._wait()
        else:
            self._waiting = False
            self._on_silent()


class StallTimeout:
    """`async with StallTimeout(2.0):` raises TimeoutError at its end once so many seconds were spent waiting."""

    __slots__ = ("_dog", "_scope")

    def __init__(self, limit_secs: float) -> None:
        self._dog = Watchdog(limit_secs, self._lose)
        self._scope = asyncio.timeout(None)

    def renew(self) -> None:
        self._dog.renew()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._dog.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dog.close()
        await self._scope.__aexit__(kind, failure, trace)

    def _lose(self) -> None:
        self._scope.reschedule(asyncio.get_running_loop().time())
