"""Limit how many requests a worker handles at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ConcurrencySlots:
    """Count the free concurrency slots of a worker; its queue consumers share them.

    `size` is the number of slots. While the worker is `paused` none is free, and while its engine is unhealthy, or has
    not shown yet that it has recovered, no more than `restrict` allows.
    """

    def __init__(self, size: int) -> None:
        """Start with `size` free slots."""
        self.size = size
        self.paused = False
        self.used = 0
        self._reserved = 0  # for requests that a take may bring
        self.peak = 0  # the most that were occupied at a time since `reset_peak()`
        self.on_available: Callable[[], None] | None = None  # called when a slot may have become free
        self._usable: int | None = None  # as far as the engine is known to be healthy; None: all
        self._available = asyncio.Event()
        self._available.set()

    @property
    def free(self) -> int:
        """Return how many more requests the worker may take now."""
        if self.paused:
            return 0
        most = self.size if self._usable is None else min(self.size, self._usable)
        return max(0, most - self.used - self._reserved)

    @property
    def are_full(self) -> bool:
        """Return whether requests occupy all slots, of a worker that would take more if they did not."""
        return self.are_open and self.used >= self.size

    @property
    def are_open(self) -> bool:
        """Return whether neither a pause nor the engine's health keeps slots from being used."""
        return not self.paused and self._usable is None

    async def wait_available(self) -> None:
        """Return once at least one slot is free. Another task may reserve it first."""
        await self._available.wait()

    def reserve(self, number: int) -> int:
        """Keep up to `number` free slots for what may come, and return how many.

        Each is given up with `occupy_reserved` or `unreserve`.
        """
        reserved = min(number, self.free)
        self._reserved += reserved
        self._update()
        return reserved

    def occupy_next(self) -> None:
        """Occupy the slot that becomes free next; until then one more is occupied than there are."""
        self.used += 1
        self.peak = max(self.peak, self.used)
        self._update()

    def occupy_reserved(self) -> None:
        """Occupy one slot that was reserved, which changes nothing about the others."""
        self._reserved -= 1
        self.used += 1
        self.peak = max(self.peak, self.used)

    def unreserve(self, number: int) -> None:
        """Keep some slots no longer."""
        self._reserved -= number
        self._update()

    def release(self) -> None:
        """Free one slot."""
        self.used -= 1
        self._update()

    def reset_peak(self) -> None:
        """Let the peak be what is occupied now."""
        self.peak = self.used

    def resize(self, size: int) -> None:
        """Change the number of slots to `size`, one at least. Those that are occupied stay so until their release."""
        self.size = size
        self._update()

    def restrict(self, number: int | None) -> None:
        """Occupy at most `number` slots from now on, None: all of them. Those that are occupied stay so."""
        self._usable = number
        self._update()

    def pause(self, paused: bool) -> None:
        """Let no slot be free from now on, or end that."""
        self.paused = paused
        self._update()

    def _update(self) -> None:
        if self.free:
            self._available.set()
            if self.on_available is not None:
                self.on_available()
        else:
            self._available.clear()
