"""Decide when to delay a step whose cost hardly depends on how many things it handles, so that several share it.

At a low rate each thing is handled at once: a delay would add latency and save nothing. Once several things would
share a step, steps keep a minimum distance, and what arrives between two steps shares the next.
"""

from __future__ import annotations

import asyncio

_WINDOW_SECS = 0.05  # the rate is measured over this time


class FlushPacer:
    """Pace one kind of step. It reads the loop's clock twice for each step."""

    __slots__ = ("_clock", "_count", "_distance_secs", "_pays_per_sec", "_stepped_at", "_window_at", "steady")

    def __init__(self, *, distance_secs: float, pays_at: int) -> None:
        """Keep `distance_secs` between steps while at least `pays_at` things arrive in that time."""
        self._clock = asyncio.get_running_loop().time
        self._distance_secs = distance_secs
        self._pays_per_sec = pays_at / distance_secs
        self._stepped_at = self._window_at = self._clock()
        self._count = 0
        self.steady = False  # the distance is being kept

    def step(self, things: int) -> None:
        """Note that a step begins now, for so many things."""
        now = self._stepped_at = self._clock()
        self._count += things
        elapsed_secs = now - self._window_at
        if elapsed_secs >= _WINDOW_SECS:
            self.steady = self._count >= self._pays_per_sec * elapsed_secs
            self._count, self._window_at = 0, now

    def wait_secs(self) -> float:
        """Return how long the next step should wait; 0 when it should not."""
        return max(0.0, self._stepped_at + self._distance_secs - self._clock()) if self.steady else 0.0
