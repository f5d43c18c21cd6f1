"""Limit a model's queue where it lies in several shards, so that the limit holds for all of them together.

With one shard the admitting script compares the depth itself. With several no script can, so the depths are added up
before an admission: for each admission when the sum is near the limit, else at most once in a tenth of a second.
Frontends that admit at the same moment may exceed the limit by what they admit in that moment.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from lifecycle.store.transitions import Store

_FRESH_SECS = 0.1
_NEAR = 0.5  # of the limit
_MODELS = 1000  # depths that are cached at most


class _Depth(NamedTuple):
    number: int
    read_at: float


class QueueLimit:
    """Know the depth of each model's queue approximately."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._depths: dict[str, _Depth] = {}

    async def is_full(self, model: str) -> bool:
        """Return whether a model's queue has reached the limit, and count one more request if not.

        A shard that is unavailable counts as empty: it refuses admissions itself, and must not stop the others.
        """
        if self._store.settings.shards == 1:
            return False
        limit = self._store.settings.queue_limit
        known = self._depths.get(model)
        now = time.monotonic()
        if known is None or known.number >= limit * _NEAR or now - known.read_at > _FRESH_SECS:
            if len(self._depths) >= _MODELS:
                self._depths.clear()
            known = _Depth(await self._store.queue_depth(model), now)
        self._depths[model] = known._replace(number=known.number + 1)  # admissions count until the depth is read again
        return known.number >= limit
