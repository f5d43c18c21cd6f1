"""Find how many requests a worker should run at a time, from what it sees of its engine.

It begins with the lowest limit, whose latencies are those of an engine in which nothing waits. While all slots are in
use and nothing waits, the limit doubles, and after the first cut grows by its square root. Once something waits, it is
cut, as in TCP's AIMD: to three quarters if the engine says itself what waits; else, as the gradient
controllers of Envoy and of Netflix's concurrency-limits do, by the ratio of the lowest latency of late to the present
one. Envoy measures the lowest latency with few requests from time to time. Here each cut goes a little below what the
engine can run, and so measures it anew.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

_CUT_WAITING = 0.75
_CUT_GRADIENT = 0.9  # times the gradient, so that nothing waits afterwards
_LEAST_CUT, _MOST_CUT = 0.9, 0.5
_FIRST_EVENT_TOLERANCE = 1.5  # as in Netflix's Gradient2
_EVENT_TOLERANCE = 2.0  # events of one request may come slower while all together still come faster
_FIRST_EVENT_NOISE_SECS = 0.01
_EVENT_NOISE_SECS = 0.002
_WAITING_SHARE = 10  # a tenth of the limit may wait inside the engine
_REMEMBERED = 30  # windows
_LOWEST_WINDOWS = 5  # of congestion at the lowest limit, after which the latencies of before are forgotten


class Window(NamedTuple):
    """Tells what a worker has seen since the last decision about the limit.

    Medians are None where there is too little to tell. `waiting` is how many requests the engine says to hold back,
    None when it says nothing; then the latencies decide.
    """

    is_limited: bool  # all slots were occupied at some moment
    first_event_secs: float | None = None  # from the start of an attempt to its first event
    event_secs: float | None = None  # between two events of one attempt
    waiting: int | None = None


class ConcurrencyController:
    """Decide about the `limit`, between two bounds, at the end of each window."""

    def __init__(self, low: int, high: int) -> None:
        """Begin with the limit `low`; `high` is the largest."""
        self._low, self._high = low, high
        self.limit = low
        self._was_cut = False
        self._first_event = _Baseline(_FIRST_EVENT_TOLERANCE, _FIRST_EVENT_NOISE_SECS)
        self._event = _Baseline(_EVENT_TOLERANCE, _EVENT_NOISE_SECS)
        self._lowest_windows = 0

    def close_window(self, window: Window) -> int:
        """Take what was seen under the present limit, and return the next one."""
        cut = self._cut(window)
        if cut is not None:
            self._note_lowest()
            self._was_cut = True
            self.limit = max(self._low, math.floor(self.limit * cut))
        else:
            self._lowest_windows = 0
            if window.is_limited:
                self.limit = min(self._high, self.limit + (math.isqrt(self.limit) if self._was_cut else self.limit))
        return self.limit

    def _cut(self, window: Window) -> float | None:
        """Return by which factor to cut the limit, None when nothing waits inside the engine."""
        gradients = (
            self._first_event.gradient(window.first_event_secs),
            self._event.gradient(window.event_secs),
        )
        if window.waiting is not None:
            return _CUT_WAITING if window.waiting > max(1, self.limit // _WAITING_SHARE) else None
        congested = [gradient for gradient in gradients if gradient is not None]
        return max(_MOST_CUT, min(_LEAST_CUT, _CUT_GRADIENT * min(congested))) if congested else None

    def _note_lowest(self) -> None:
        """Forget the latencies of before when fewer requests do not bring them back: the work has become another."""
        self._lowest_windows = self._lowest_windows + 1 if self.limit == self._low else 0
        if self._lowest_windows >= _LOWEST_WINDOWS:
            self._lowest_windows = 0
            self._first_event.forget()
            self._event.forget()


class _Baseline:
    """The lowest of the latencies of late, with which a latency is compared."""

    def __init__(self, tolerance: float, noise_secs: float) -> None:
        self._tolerance = tolerance
        self._noise_secs = noise_secs
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)

    def gradient(self, latency: float | None) -> float | None:
        """Remember a latency; return the ratio of the lowest one to it, None unless it is too far above that."""
        if latency is None:
            return None
        self._seen.append(latency)
        lowest = min(self._seen)
        return lowest / latency if latency > lowest * self._tolerance + self._noise_secs else None

    def forget(self) -> None:
        self._seen.clear()
