"""Limit how many requests a worker handles at a time."""

from __future__ import annotations

import asyncio


class ConcurrencySlots:
    """Count the free concurrency slots of a worker; its queue consumers share them.

    `size` is the number of slots while the engine is healthy.
    """

    def __init__(self, size: int) -> None:
        """Start with `size` free slots."""
        self.size = size
        self.used = 0
        self._limit = size
        self._available = asyncio.Event()
        self._available.set()

    def resize(self, size: int) -> None:
        """Change the number of slots to `size`, one at least. None may be occupied."""
        self.size = self._limit = size

    @property
    def free(self) -> int:
        """Return how many more requests the worker may take now."""
        return max(0, self._limit - self.used)

    async def wait_available(self) -> None:
        """Return once at least one slot is free. Another task may acquire it first."""
        await self._available.wait()

    def acquire(self, number: int) -> int:
        """Occupy up to `number` slots, as many as are free. Return how many were."""
        acquired = min(number, self.free)
        self.used += acquired
        self._update()
        return acquired

    def release(self, number: int = 1) -> None:
        """Free some slots."""
        self.used -= number
        self._update()

    def limit(self, number: int) -> None:
        """Occupy at most `number` slots from now on. Those that are occupied already stay so until their release."""
        self._limit = min(number, self.size)
        self._update()

    def _update(self) -> None:
        if self.used < self._limit:
            self._available.set()
        else:
            self._available.clear()
