"""How often records are looked at only because nothing was heard of their requests.

Every message may get lost, so whoever hears nothing looks at the record at times. That is a second net below the
heartbeats' comparison, so it must cost the same whatever is in flight: a process has so many looks a second. Everybody
asks at random times, or the same ones would be first every time.
"""

from __future__ import annotations

import asyncio
import random

PER_SEC = 20
_BURST = 20


class RateLimiter:
    """A token bucket."""

    def __init__(self, per_sec: float = PER_SEC) -> None:
        self._clock = asyncio.get_running_loop().time
        self._interval_secs = 1 / per_sec
        self._next_at = 0.0

    def take(self) -> bool:
        """Whether there is one left."""
        now = self._clock()
        self._next_at = max(self._next_at, now - _BURST * self._interval_secs)
        if self._next_at > now:
            return False
        self._next_at += self._interval_secs
        return True

    @staticmethod
    def next_secs(interval_secs: float) -> float:
        """When to ask next."""
        return interval_secs * (0.5 + random.random())
