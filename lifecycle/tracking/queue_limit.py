"""Limit what waits where it lies in several shards, so that the limits hold for all of them together.

With one shard the admitting script itself compares how many requests of the owner wait for the model, and the bytes of
all bodies that wait. With several no script can, so they are added up before an admission: for each admission when the
sum is near its limit, else at most once in a tenth of a second. Frontends that admit at the same moment may exceed the
limits by what they admit in that moment.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Literal

from lifecycle.store.transitions import Store

_FRESH_SECS = 0.1
_NEAR = 0.5  # of the limit
_FLOWS = 1000  # depths that are cached at most


class _Sum:
    """Keep a sum over all shards as it was lately, with what was admitted here since."""

    def __init__(self) -> None:
        self.value = 0
        self._read_at = float("-inf")

    async def refresh(self, limit: int, read: Callable[[], Awaitable[int]]) -> None:
        """Read the sum again if it is old, or near its limit."""
        now = time.monotonic()
        if self.value >= limit * _NEAR or now - self._read_at > _FRESH_SECS:
            self.value, self._read_at = await read(), now


class QueueLimit:
    """Know approximately how many requests of each owner wait for a model, and how large the bodies of all are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._depths: dict[tuple[str, str], _Sum] = {}
        self._bytes = _Sum()

    async def refusal(self, model: str, owner: str, body_bytes: int) -> Literal["full", "full_bytes"] | None:
        """Return why a request may not be queued, or None, and count it then.

        A shard that is unavailable counts as empty: it refuses admissions itself, and must not stop the others.
        """
        settings = self._store.settings
        if settings.shards == 1:
            return None
        flow = model, owner
        if len(self._depths) >= _FLOWS and flow not in self._depths:
            self._depths.clear()
        depth, total = self._depths.setdefault(flow, _Sum()), self._bytes
        await depth.refresh(settings.queue_limit, lambda: self._store.queue_depth(model, owner))
        if depth.value >= settings.queue_limit:
            return "full"
        await total.refresh(settings.queue_bytes, self._queued_bytes)
        if total.value and total.value + body_bytes > settings.queue_bytes:
            return "full_bytes"
        depth.value += 1
        total.value += body_bytes
        return None

    async def _queued_bytes(self) -> int:
        return sum((await self._store.queued_bytes()).values())
