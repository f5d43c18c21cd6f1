"""Find the shards of a Redis Cluster, and let a stream run in each of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.crc import key_slot

from lifecycle.settings import Settings
from lifecycle.store.keys import Keys
from tests.chaos.bench import Bench
from tests.chaos.load import paced
from tests.cluster_setup import ClusterNode, ClusterSetup
from tests.sse import Stream

SHARDS = 6
"""How many there are: two for each of the three primaries."""


class Places:
    """The slots and nodes of shards and requests."""

    def __init__(self, settings: Settings, cluster: ClusterSetup) -> None:
        self.keys = Keys(settings.namespace, settings.shards)
        self._cluster = cluster
        self._numbers = itertools.count()

    def slot(self, shard: int) -> int:
        return int(key_slot(self.keys.prefixes[shard].encode()))

    @property
    def control_slot(self) -> int:
        return int(key_slot(self.keys.control.encode()))

    def new_rid(self, shard: int) -> str:
        """A request id of that shard."""
        return next(rid for n in self._numbers if self.keys.shard_of(rid := f"r{n}") == shard)

    def primary(self, which: str) -> ClusterNode:
        """The one with the control keys (`control`), or another."""
        control = self._cluster.node_of(self.control_slot)
        return control if which == "control" else next(n for n in self._cluster.primaries if n is not control)

    def shards_of(self, node: ClusterNode) -> set[int]:
        return {shard for shard in range(SHARDS) if self._cluster.node_of(self.slot(shard)) is node}


@asynccontextmanager
async def a_stream_in_every_shard(bench: Bench, places: Places, count: int) -> AsyncIterator[dict[int, Stream]]:
    """A stream of `count` tokens by shard, of which two have been read."""
    async with AsyncExitStack() as stack:
        streams: dict[int, Stream] = {}
        for shard in range(SHARDS):
            frontend = bench.frontends[shard % len(bench.frontends)]
            opened = bench.post(frontend, paced(count, 0.03), places.new_rid(shard))
            streams[shard] = await stack.enter_async_context(opened)
        for stream in streams.values():
            await stream.read_tokens(2)
        yield streams
