"""Timeouts for waiting on another process, in which delays of the own event loop do not count.

When the event loop was blocked or is overloaded, an ordinary timeout fires although the answer is already in the
socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

_TICKS = 8  # the timeout is divided into ticks, and a late tick counts as one


class Watchdog:
    """Calls `on_silent` once after `limit_secs` of waiting without a renewal.

    `begin`, `renew` and `rest` are cheap: a timer that runs is not re-armed.
    """

    __slots__ = ("_left_secs", "_limit_secs", "_loop", "_on_silent", "_tick_secs", "_ticked_at", "_timer", "_waiting")

    def __init__(self, limit_secs: float, on_silent: Callable[[], None]) -> None:
        self._limit_secs = self._left_secs = limit_secs
        self._tick_secs = limit_secs / _TICKS
        self._on_silent = on_silent
        self._loop = asyncio.get_running_loop()
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin to wait; the time begins anew."""
        self._waiting = True
        self.renew()
        if self._timer is None:
            self._wait()

    def renew(self) -> None:
        """Begin the time anew, because something has come. A tick that is under way does not count."""
        self._left_secs = self._limit_secs + self._tick_secs

    def rest(self) -> None:
        """Stop waiting until the next `begin`."""
        self._waiting = False

    def close(self) -> None:
        """Stop waiting and remove the timer."""
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
    """A timeout as a context manager: `async with StallTimeout(2.0):`.

    It cancels its block after that many seconds of waiting without `renew()`, and raises TimeoutError at its end.
    """

    __slots__ = ("_scope", "_watchdog")

    def __init__(self, limit_secs: float) -> None:
        self._watchdog = Watchdog(limit_secs, self._cancel_block)
        self._scope = asyncio.timeout(None)

    def renew(self) -> None:
        """Begin the time anew."""
        self._watchdog.renew()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._watchdog.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.close()
        await self._scope.__aexit__(kind, failure, trace)

    def _cancel_block(self) -> None:
        self._scope.reschedule(asyncio.get_running_loop().time())
