"""Limits how often a process rechecks records of requests of which no event came.

Any message may be lost, so a request without events is rechecked at times. This is a second safeguard behind the
reconciliation of heartbeats, so its cost must not grow with the number of inflight requests: a process has a fixed
number of rechecks in a second. Callers ask at random times, or the same ones would come first every time.
"""

from __future__ import annotations

import asyncio
import random

PER_SEC = 20
_BURST = 20


class RateLimiter:
    """A token bucket of `per_sec` permits a second, with a burst of 20."""

    def __init__(self, per_sec: float = PER_SEC) -> None:
        self._clock = asyncio.get_running_loop().time
        self._interval_secs = 1 / per_sec
        self._next_at = 0.0

    def take(self) -> bool:
        """Take one permit; return False when none is left."""
        now = self._clock()
        self._next_at = max(self._next_at, now - _BURST * self._interval_secs)
        if self._next_at > now:
            return False
        self._next_at += self._interval_secs
        return True

    @staticmethod
    def next_secs(interval_secs: float) -> float:
        """Return a random time around `interval_secs`, after which to ask again."""
        return interval_secs * (0.5 + random.random())
