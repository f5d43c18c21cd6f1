"""Make the queues of models, and measure what waits in them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from lifecycle.errors import StoreUnavailable
from lifecycle.store.runner import ScriptRunner


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
        depths = await asyncio.gather(*(self.commands.execute("XLEN", key) for key in keys), return_exceptions=True)
        for depth in depths:
            if isinstance(depth, BaseException) and not isinstance(depth, StoreUnavailable):
                raise depth
        return sum(depth for depth in depths if isinstance(depth, int))
