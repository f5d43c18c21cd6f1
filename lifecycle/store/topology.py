"""Redis Cluster: which node serves a key, as far as is known, and clients of the nodes.

What is known is repaired by use: a MOVED reply corrects one slot at once, a node that fails casts doubt on the whole
map, and the next call asks every node for it; the first answer is taken. ASK is never followed: it means that a slot
is being moved key by key, and a script must not run where it sees half of its keys (its declared key, the shard's
prefix, exists on neither side, so neither runs it). The shard waits until the move is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lifecycle import tasks
from lifecycle.address import Address
from lifecycle.errors import StoreUnavailable
from lifecycle.store.keys import SLOTS, crc16

log = logging.getLogger(__name__)

T = TypeVar("T")
Node = tuple[str, int]
REDIRECTS = 5
_PAUSE_SECS = 0.1  # between two looks at the map


def slot_of(key: str | bytes) -> int:
    """By the hash tag, as the Cluster specification has it."""
    raw = key.encode() if isinstance(key, str) else key
    start = raw.find(b"{")
    if start >= 0:
        end = raw.find(b"}", start + 1)
        if end > start + 1:
            raw = raw[start + 1 : end]
    return crc16(raw) % SLOTS


class Topology:
    """One a process. `make(url)` gives a client; they are kept until `aclose()`."""

    def __init__(self, address: Address, make: Callable[[str], Redis]) -> None:
        self._address = address
        self._asking = PerNode(self, make, Redis.aclose)
        self._slots: dict[int, Node] = {}
        self._primaries: list[Node] = []
        self._doubtful = True
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._turn = 0

    def url(self, node: Node) -> str:
        return self._address.node_url(*node)

    async def node_of(self, slot: int) -> Node:
        """Raises StoreUnavailable when no node says who serves it."""
        if self._doubtful or slot not in self._slots:
            await self._look()
        node = self._slots.get(slot)
        if node is None:
            raise StoreUnavailable("Redis Cluster cannot be reached, or nobody in it serves this part of the data")
        return node

    async def primaries(self) -> list[Node]:
        if self._doubtful:
            await self._look()
        return list(self._primaries)

    async def some_node(self) -> Node:
        """Another one with each call, so that one that hangs is not asked again and again."""
        known = await self.primaries() or list(self._address.nodes)
        self._turn += 1
        return known[self._turn % len(known)]

    def moved(self, slot: int, node: Node, asked: Node) -> None:
        """A node says who serves the slot now; an empty host is the one that was asked."""
        self._slots[slot] = (node[0] or asked[0], node[1])
        self._doubtful = True

    def doubt(self) -> None:
        """A node failed: another may have taken its place."""
        self._doubtful = True

    def strangers(self, nodes: Iterable[Node]) -> list[Node]:
        """Those that serve nothing and are not in the URL, as far as is known."""
        known = {*self._address.nodes, *self._primaries}
        return [node for node in nodes if node not in known] if self._primaries else []

    async def aclose(self) -> None:
        await self._asking.aclose()

    async def _look(self) -> None:
        """Ask every known node at once, take the first answer. Without one, what was known stays, and in doubt."""
        async with self._looking:
            loop = asyncio.get_running_loop()
            if not self._doubtful or loop.time() - self._looked_at < _PAUSE_SECS:
                return
            ranges = await self._first_answer({*self._address.nodes, *self._primaries})
            self._looked_at = loop.time()
            if ranges is None:
                return
            primaries: list[Node] = []
            for low, high, node in ranges:
                self._slots.update(dict.fromkeys(range(low, high + 1), node))
                if node not in primaries:
                    primaries.append(node)
            self._primaries, self._doubtful = primaries, False

    async def _first_answer(self, nodes: Iterable[Node]) -> list[tuple[int, int, Node]] | None:
        asked = [asyncio.create_task(self._ask(node), name="cluster-slots") for node in nodes]
        try:
            for answer in asyncio.as_completed(asked):
                ranges = await answer
                if ranges:
                    return ranges
            return None
        finally:
            await tasks.end(asked)

    async def _ask(self, node: Node) -> list[tuple[int, int, Node]] | None:
        client = await self._asking.get(node)
        client.response_callbacks.clear()
        try:
            reply = await cast(Any, client).execute_command("CLUSTER SLOTS")
        except (RedisError, OSError) as failure:
            tasks.check_cancelled()
            log.debug("%s:%d does not tell the cluster's slots: %s", *node, failure)
            return None
        ranges = []
        for low, high, primary, *_ in reply:
            with suppress(AttributeError):  # the host may be unknown: nil
                ranges.append((int(low), int(high), (primary[0].decode() or node[0], int(primary[1]))))
        return ranges


class PerNode(Generic[T]):
    """One of something for each node. When a new node comes, what belongs to nodes that have left is closed."""

    def __init__(self, topology: Topology, make: Callable[[str], T], close: Callable[[T], Awaitable[None]]) -> None:
        """`make` is given the node's URL."""
        self._topology = topology
        self._make = make
        self._close = close
        self._kept: dict[Node, T] = {}

    async def get(self, node: Node) -> T:
        found = self._kept.get(node)
        if found is None:
            found = self._kept[node] = self._make(self._topology.url(node))
            for stranger in self._topology.strangers(set(self._kept) - {node}):
                await self._close(self._kept.pop(stranger))
        return found

    async def aclose(self) -> None:
        while self._kept:
            await self._close(self._kept.popitem()[1])
