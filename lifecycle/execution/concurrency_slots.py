"""Limit how many requests a worker handles at a time."""

from __future__ import annotations

import asyncio


class ConcurrencySlots:
    """Count the free concurrency slots of a worker; its queue consumers share them.

    `size` is the number of slots. While the worker is `paused` none is free, and while its engine is unhealthy no more
    than `limit` allows. `polling` is the lock of the queue consumer that polls its queues for the last few slots.
    """

    def __init__(self, size: int) -> None:
        """Start with `size` free slots."""
        self.size = size
        self.paused = False
        self.polling = asyncio.Lock()
        self.used = 0
        self.peak = 0  # the most that were occupied at a time since `reset_peak()`
        self._limit: int | None = None  # of the engine's health, None while it is healthy
        self._available = asyncio.Event()
        self._available.set()

    @property
    def free(self) -> int:
        """Return how many more requests the worker may take now."""
        return max(0, self._most - self.used)

    @property
    def _most(self) -> int:
        if self.paused:
            return 0
        return self.size if self._limit is None else min(self.size, self._limit)

    async def wait_available(self) -> None:
        """Return once at least one slot is free. Another task may acquire it first."""
        await self._available.wait()

    def try_acquire(self) -> bool:
        """Occupy one slot. Return False when none is free."""
        if self.used >= self._most:
            return False
        self.used += 1
        self.peak = max(self.peak, self.used)
        self._update()
        return True

    def reset_peak(self) -> None:
        """Let the peak be what is occupied now."""
        self.peak = self.used

    def release(self) -> None:
        """Free one slot."""
        self.used -= 1
        self._update()

    def resize(self, size: int) -> None:
        """Change the number of slots to `size`, one at least. Those that are occupied stay so until their release."""
        self.size = size
        self._update()

    def limit(self, number: int | None) -> None:
        """Occupy at most `number` slots from now on, None: all of them. Those that are occupied stay so."""
        self._limit = number
        self._update()

    def pause(self, paused: bool) -> None:
        """Let no slot be free from now on, or end that."""
        self.paused = paused
        self._update()

    def _update(self) -> None:
        if self.used < self._most:
            self._available.set()
        else:
            self._available.clear()
