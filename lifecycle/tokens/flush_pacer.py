"""When to let small things gather before a step that costs much the same for one as for many.

Where little comes, each is served at once: waiting would cost latency and save nothing. Once so much comes that several
would share a step, steps keep a distance, and what comes between two of them shares the next.
"""

from __future__ import annotations

import asyncio

_WINDOW_SECS = 0.05  # over which the rate is measured


class Pace:
    """Of one kind of step. Costs two readings of the loop's clock a step."""

    __slots__ = ("_clock", "_count", "_distance_secs", "_pays_per_sec", "_stepped_at", "_window_at", "steady")

    def __init__(self, *, distance_secs: float, pays_at: int) -> None:
        """`pays_at`: the distance is kept while at least so many things come in the time of it."""
        self._clock = asyncio.get_running_loop().time
        self._distance_secs = distance_secs
        self._pays_per_sec = pays_at / distance_secs
        self._stepped_at = self._window_at = self._clock()
        self._count = 0
        self.steady = False  # the distance is kept

    def step(self, things: int) -> None:
        """A step begins now, for so many things."""
        now = self._stepped_at = self._clock()
        self._count += things
        elapsed_secs = now - self._window_at
        if elapsed_secs >= _WINDOW_SECS:
            self.steady = self._count >= self._pays_per_sec * elapsed_secs
            self._count, self._window_at = 0, now

    def wait_secs(self) -> float:
        """How long the next step should wait; 0 for not at all."""
        return max(0.0, self._stepped_at + self._distance_secs - self._clock()) if self.steady else 0.0
