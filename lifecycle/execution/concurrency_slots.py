"""Limit how many requests a worker handles at a time."""

from __future__ import annotations

import asyncio


class ConcurrencySlots:
    """Count the free concurrency slots of a worker; its queue consumers share them.

    `polling` is the lock of the queue consumer that polls its queues for the last few slots.
    """

    def __init__(self, size: int) -> None:
        """Start with `size` free slots."""
        self.free = size
        self.polling = asyncio.Lock()
        self._available = asyncio.Event()
        self._available.set()

    def resize(self, size: int) -> None:
        """Change the number of slots to `size`, one at least. None may be occupied."""
        self.free = size

    async def wait_available(self) -> None:
        """Return once at least one slot is free. Another task may acquire it first."""
        await self._available.wait()

    def try_acquire(self) -> bool:
        """Occupy one slot. Return False when none is free."""
        if self.free <= 0:
            return False
        self.free -= 1
        if self.free == 0:
            self._available.clear()
        return True

    def release(self) -> None:
        """Free one slot."""
        self.free += 1
        self._available.set()
