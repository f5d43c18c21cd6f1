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
from typing import Any, Generic, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import StoreUnavailable
from lifecycle.redis_url import Address
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
        self._suspects: set[Node] = set()  # that failed since the map was last made: their own maps count last
        self._doubtful = True
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._turn = 0

    def url(self, node: Node) -> str:
        return self._address.node_url(*node)

    async def node_of(self, slot: int) -> Node:
        """Raises StoreUnavailable when no node says who serves it."""
        if self._doubtful or slot not in self._slots:
            await self._look(known=slot in self._slots)
        node = self._slots.get(slot)
        if node is None:
            raise StoreUnavailable("Redis Cluster cannot be reached, or nobody in it serves this part of the data")
        return node

    async def primaries(self) -> list[Node]:
        """Raises StoreUnavailable when no node tells them."""
        if self._doubtful:
            await self._look(known=bool(self._primaries))
        if not self._primaries:
            raise StoreUnavailable("Redis Cluster cannot be reached")
        return list(self._primaries)

    async def some_node(self) -> Node:
        """Another one with each call, so that one that hangs is not asked again and again."""
        known = await self.primaries()
        self._turn += 1
        return known[self._turn % len(known)]

    def moved(self, slot: int, node: Node, asked: Node) -> None:
        """A node says who serves the slot now."""
        self._slots[slot] = _named(node[0], node[1], asked)
        self._doubtful = True

    def mark_stale(self, node: Node) -> None:
        """It failed: another may have taken its place."""
        self._suspects.add(node)
        self._doubtful = True

    def strangers(self, nodes: Iterable[Node]) -> list[Node]:
        """Those that serve nothing and are not in the URL, as far as is known."""
        known = {*self._address.nodes, *self._primaries}
        return [node for node in nodes if node not in known] if self._primaries else []

    async def aclose(self) -> None:
        if self._looking is not None:
            await tasks.end((self._looking,))
        await self._asking.aclose()

    async def _look(self, *, known: bool) -> None:
        """One look at a time is shared by all. Who has somewhere to go meanwhile waits for it only briefly."""
        loop = asyncio.get_running_loop()
        if self._looking is None or self._looking.done():
            if loop.time() - self._looked_at < _PAUSE_SECS:
                return
            self._looking = asyncio.create_task(self._ask_all(), name="cluster map")
        await asyncio.wait((self._looking,), timeout=_PAUSE_SECS if known else None)

    async def _ask_all(self) -> None:
        """Every known node at once; the first answer counts. Without one, what was known stays, and in doubt."""
        ranges = await self._first_answer({*self._address.nodes, *self._primaries})
        self._looked_at = asyncio.get_running_loop().time()
        if ranges is None:
            return
        primaries: list[Node] = []
        for low, high, node in ranges:
            self._slots.update(dict.fromkeys(range(low, high + 1), node))
            if node not in primaries:
                primaries.append(node)
        self._primaries, self._doubtful = primaries, False
        self._suspects.clear()

    async def _first_answer(self, nodes: Iterable[Node]) -> list[tuple[int, int, Node]] | None:
        """Of a node that is not suspect, if there is one: a primary that was cut off keeps telling its old map."""
        asked = {asyncio.create_task(self._ask(node), name="cluster-slots"): node for node in nodes}
        pending, of_a_suspect = set(asked), None
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    ranges = task.result()
                    if ranges and asked[task] not in self._suspects:
                        return ranges
                    of_a_suspect = of_a_suspect or ranges
            return of_a_suspect
        finally:
            await tasks.end(asked.keys())

    async def _ask(self, node: Node) -> list[tuple[int, int, Node]] | None:
        client = await self._asking.get(node)
        client.response_callbacks.clear()
        try:
            reply = await cast(Any, client).execute_command("CLUSTER SLOTS")
        except (RedisError, OSError) as failure:
            tasks.check_cancelled()
            log.debug("%s:%d does not tell the cluster's slots: %s", *node, failure)
            return None
        return [
            (int(low), int(high), _named((primary[0] or b"").decode(), int(primary[1]), node))
            for low, high, primary, *_ in reply
        ]


def _named(host: str, port: int, asked: Node) -> Node:
    """A node that does not know its own name, or another's, means the one it was asked by."""
    return (asked[0] if host in ("", "?") else host, port)


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
            gone = [self._kept.pop(stranger) for stranger in self._topology.strangers(set(self._kept) - {node})]
            for left in gone:  # they are nobody's any more, whoever else comes meanwhile
                await self._close(left)
        return found

    async def aclose(self) -> None:
        while self._kept:
            await self._close(self._kept.popitem()[1])
