"""How much waits for a model where its queue lies in several shards, so that the limit holds for all of them together.

In one shard the admitting script compares the depth itself. Over several no script can: here the depths are added up
before an admission, anew for each when they come near the limit, and at most a tenth of a second old otherwise.
Frontends that admit at the same moment may exceed the limit by what they admit in that moment.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from lifecycle.store.scripts import Store

_FRESH_SECS = 0.1
_NEAR = 0.5  # of the limit
_MODELS = 1000


class _Depth(NamedTuple):
    number: int
    seen_at: float


class Backlog:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._limit = store.settings.queue_limit
        self._depths: dict[str, _Depth] = {}

    async def is_full(self, model: str) -> bool:
        """A shard that is away counts as empty: it refuses for itself, and keeps nothing from the others."""
        if self._store.settings.shards == 1:
            return False
        known = self._depths.get(model)
        now = time.monotonic()
        if known is None or known.number >= self._limit * _NEAR or now - known.seen_at > _FRESH_SECS:
            if len(self._depths) >= _MODELS:
                self._depths.clear()
            known = _Depth(await self._store.queue_depth(model), now)
        self._depths[model] = known._replace(number=known.number + 1)  # what is admitted now counts until the next look
        return known.number >= self._limit
