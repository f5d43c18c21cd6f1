"""Make the queues of models, and measure what waits in them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from lifecycle.errors import StoreUnavailable
from lifecycle.store.runner import ScriptRunner, as_text


class Queues(ScriptRunner):
    """The part of the Store that knows the queues: of each model one for new requests and one for those tried again."""

    async def open_queues(self, shard: int, models: Sequence[str], *, retry_for_secs: float = 0.0) -> None:
        """Make the queues of these models in one shard, with the consumer group that all workers share.

        A repetition changes nothing. Raises StoreUnavailable, but not because the memory of Redis is full.
        """
        prefix = self._prefixes[shard]
        await self.run("open_queues", prefix, orjson.dumps(list(models)), retry_for_secs=retry_for_secs)

    async def queue_depth(self, model: str) -> int:
        """Return how many requests wait for this model in the shards that answer.

        A shard that is unavailable counts as 0, so the number is then too small.
        """
        keys = [prefix + queue + model for prefix in self._prefixes for queue in ("queue:", "retry:")]
        return sum(await self._each("XLEN", keys))

    async def queued_bytes(self) -> dict[str, int]:
        """Return how many bytes the queued requests' bodies have, by model, in the shards that answer."""
        found: Counter[str] = Counter()
        for flat in await self._each("HGETALL", [prefix + "queued_bytes" for prefix in self._prefixes]):
            found.update({as_text(model): int(size) for model, size in zip(flat[::2], flat[1::2], strict=True)})
        return dict(found)

    async def _each(self, command: str, keys: Sequence[str]) -> list[Any]:
        """Return the replies about these keys of several shards, without those of shards that are unavailable."""
        replies = await asyncio.gather(*(self.commands.execute(command, key) for key in keys), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, StoreUnavailable):
                raise reply
        return [reply for reply in replies if not isinstance(reply, BaseException)]
