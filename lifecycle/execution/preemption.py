"""Choose which running request of a worker without a free slot is moved for a waiting one of better priority."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter

from lifecycle.execution.attempt import Attempt
from lifecycle.execution.concurrency_slots import ConcurrencySlots

MOST_PREEMPTIONS = 3
"""How often one request is moved for others; then it keeps its slot, so that it ends."""


class Preemption:
    """Know what may be moved: the worst priority first, and of one priority what has started last.

    The worker's queue consumers share it. Each asks a shard for a request that is better than one which may be moved,
    and only what the shard gives moves one. So no more is moved than is taken in its place. Unless it is on, nothing
    is ever moved.
    """

    def __init__(self, slots: ConcurrencySlots, attempts: Callable[[], Sequence[Attempt]], *, is_on: bool) -> None:
        """`attempts` returns those that run at the moment."""
        self._slots = slots
        self._attempts = attempts
        self._is_on = is_on
        self._candidates: list[Attempt] | None = []  # the first to be moved comes last; None when they have changed
        self._chosen: set[Attempt] = set()  # are being moved, or could not be
        self._asking = 0
        self._changed = asyncio.Event()
        if is_on:
            slots.on_available = self.wake

    @property
    def worst(self) -> int | None:
        """Return the priority of the request that would be moved first; None when none may be moved."""
        movable = self._movable()
        return movable[-1].priority if movable and self._slots.are_open else None

    @property
    def can_ask(self) -> bool:
        """Return whether all slots are occupied, and more may be moved than is being asked for."""
        return self._slots.are_full and len(self._movable()) > self._asking

    def begin_asking(self) -> int:
        """Begin to ask a shard for a request, and return which priority it must be better than. `can_ask` is true.

        Each call is followed by one of `end_asking`.
        """
        self._asking += 1
        return self._movable()[-self._asking].priority

    def end_asking(self) -> None:
        """Note that a shard has answered, or will not."""
        self._asking -= 1
        self.wake()

    def choose(self, priority: int) -> Attempt | None:
        """Return the attempt that is to be moved for a request of this priority; None when none is worse.

        It is returned once.
        """
        movable = self._movable()
        if not movable or movable[-1].priority <= priority:
            return None
        self._chosen.add(movable[-1])
        return movable.pop()

    def note_change(self) -> None:
        """Note that an attempt has begun or ended."""
        if self._is_on:
            self._candidates = None
            self.wake()

    def wake(self) -> None:
        """With preemption, let everybody look again who waits for a change."""
        if self._is_on:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def wait_changed(self) -> None:
        """Return once a slot may be free; with preemption also when something else may be moved, or after `wake`."""
        await (self._changed.wait() if self._is_on else self._slots.wait_available())

    def _movable(self) -> list[Attempt]:
        if self._candidates is None:
            running = self._attempts()
            self._chosen.intersection_update(running)
            candidates = [a for a in running if a.preemptions < MOST_PREEMPTIONS and a not in self._chosen]
            self._candidates = sorted(candidates, key=attrgetter("priority", "began_at"))
        while self._candidates and not self._candidates[-1].can_resume:
            self._candidates.pop()
        return self._candidates
