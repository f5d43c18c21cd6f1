"""Say what a fault is, and draw faults from a bag."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple


class Struck(NamedTuple):
    """On what a fault has fallen, and the frontends whose connections it may have broken (their URLs)."""

    what: str
    frontends: tuple[str, ...] = ()


class Fault(NamedTuple):
    """`strike` breaks one thing and mends it. `loses_data`: Redis may lose what it had acknowledged.

    `expires_leases`: it may last too long for the leases, although the replicas of the cluster live.
    """

    kind: str
    strike: Callable[[], Awaitable[Struck]]
    loses_data: bool = False
    expires_leases: bool = False


class Bag:
    """Draw each fault once in an order that the seed decides, then all of them in another order, and so on."""

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._faults = faults
        self._left: list[Fault] = []
        self._dice = random.Random(f"bag {seed}")

    def draw(self) -> Fault:
        if not self._left:
            self._left = list(self._faults)
            self._dice.shuffle(self._left)
        return self._left.pop()
