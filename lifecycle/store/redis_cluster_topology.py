"""The slot map of a Redis Cluster, and one client for each of its nodes.

The map is corrected by use. A MOVED reply corrects one slot at once. It also marks the map as stale, and so does a node
that fails; the next call then asks every node for its map and takes the first answer. ASK is never followed: it means
that a slot is being moved key by key, and a script must not run where it sees half of its Redis keys. The declared key
of a script, the shard's prefix, exists on neither node, so neither runs it, and the shard waits until the move is over.
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
from lifecycle.redis_url import RedisUrl
from lifecycle.store.keys import SLOTS, crc16

log = logging.getLogger(__name__)

T = TypeVar("T")
Node = tuple[str, int]
REDIRECTS = 5
_PAUSE_SECS = 0.1  # between two refreshes of the map
_LONGEST_PAUSE_SECS = 0.5  # between two refreshes while the map does not change


def slot_of(key: str | bytes) -> int:
    """Return the slot of a Redis key: of its hash tag if it has one, as the Redis Cluster specification says."""
    raw = key.encode() if isinstance(key, str) else key
    start = raw.find(b"{")
    if start >= 0:
        end = raw.find(b"}", start + 1)
        if end > start + 1:
            raw = raw[start + 1 : end]
    return crc16(raw) % SLOTS


class Topology:
    """The slot map, as far as it is known.

    `make(url)` returns a client that is used to ask a node; clients are kept until `aclose()`.
    """

    def __init__(self, redis_url: RedisUrl, make: Callable[[str], Redis]) -> None:
        self._redis_url = redis_url
        self._asking = PerNode(self, make, Redis.aclose)
        self._slots: dict[int, Node] = {}
        self._primaries: list[Node] = []
        self._failed: set[Node] = set()  # since the last refresh; their own maps are used last
        self._stale = True
        self._refreshed_at = float("-inf")
        self._pause_secs = _PAUSE_SECS  # doubles with each refresh that changes nothing
        self._refreshing: asyncio.Task[None] | None = None
        self._turn = 0

    def url(self, node: Node) -> str:
        """Return the URL of one node, with the credentials and options of the deployment."""
        return self._redis_url.node_url(*node)

    async def node_of(self, slot: int) -> Node:
        """Return the node that serves a slot. Raises StoreUnavailable when no node names one."""
        if self._stale or slot not in self._slots:
            await self._refresh(known=slot in self._slots)
        node = self._slots.get(slot)
        if node is None:
            raise StoreUnavailable(f"Redis Cluster cannot be reached, or none of its nodes serves slot {slot}")
        return node

    async def primaries(self) -> list[Node]:
        """Return the nodes that serve slots. Raises StoreUnavailable when no node names them."""
        if self._stale:
            await self._refresh(known=bool(self._primaries))
        if not self._primaries:
            raise StoreUnavailable("None of the known nodes of the Redis Cluster can be reached")
        return list(self._primaries)

    async def some_node(self) -> Node:
        """Return another node with each call, so that one that hangs is not used every time.

        Raises StoreUnavailable when no node is known.
        """
        known = await self.primaries()
        self._turn += 1
        return known[self._turn % len(known)]

    def moved(self, slot: int, node: Node, asked: Node) -> None:
        """Note the node that serves a slot now, according to a MOVED reply of the node `asked`."""
        self._slots[slot] = _named(node[0], node[1], asked)
        self._stale = True

    def mark_stale(self, node: Node) -> None:
        """Mark the map as stale because this node failed: another one may serve its slots now."""
        self._failed.add(node)
        self._stale = True

    def departed(self, nodes: Iterable[Node]) -> list[Node]:
        """Return those of `nodes` that serve no slot and are not in the URL, as far as is known."""
        known = {*self._redis_url.nodes, *self._primaries}
        return [node for node in nodes if node not in known] if self._primaries else []

    async def aclose(self) -> None:
        """Close the clients and end a refresh that is under way."""
        if self._refreshing is not None:
            await tasks.end((self._refreshing,))
        await self._asking.aclose()

    async def _refresh(self, *, known: bool) -> None:
        """Refresh the map, once for all callers. With `known`, the old map can be used, so wait only briefly."""
        loop = asyncio.get_running_loop()
        if self._refreshing is None or self._refreshing.done():
            since_secs = loop.time() - self._refreshed_at
            if since_secs > 2 * _LONGEST_PAUSE_SECS:  # nothing has failed for a while
                self._pause_secs = _PAUSE_SECS
            if since_secs < self._pause_secs:
                return
            self._refreshing = asyncio.create_task(self._ask_all(), name="cluster map")
        await asyncio.wait((self._refreshing,), timeout=_PAUSE_SECS if known else None)

    async def _ask_all(self) -> None:
        """Ask every known node at once and take the first answer. Without one the old map is kept, and stays stale."""
        ranges = await self._first_answer({*self._redis_url.nodes, *self._primaries})
        self._refreshed_at = asyncio.get_running_loop().time()
        changed = False
        if ranges is not None:
            slots = {slot: node for low, high, node in ranges for slot in range(low, high + 1)}
            changed = any(self._slots.get(slot) != node for slot, node in slots.items())
            self._slots.update(slots)
            self._primaries, self._stale = list(dict.fromkeys(node for _, _, node in ranges)), False
            self._failed.clear()
        self._pause_secs = _PAUSE_SECS if changed else min(2 * self._pause_secs, _LONGEST_PAUSE_SECS)

    async def _first_answer(self, nodes: Iterable[Node]) -> list[tuple[int, int, Node]] | None:
        """Return the first map, preferably not of a failed node: a primary that was cut off still sends its old map."""
        asked = {asyncio.create_task(self._ask(node), name="cluster-slots"): node for node in nodes}
        pending, of_a_failed_node = set(asked), None
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    ranges = task.result()
                    if ranges and asked[task] not in self._failed:
                        return ranges
                    of_a_failed_node = of_a_failed_node or ranges
            return of_a_failed_node
        finally:
            await tasks.end(asked.keys())

    async def _ask(self, node: Node) -> list[tuple[int, int, Node]] | None:
        client = await self._asking.get(node)
        client.response_callbacks.clear()
        try:
            reply = await cast(Any, client).execute_command("CLUSTER SLOTS")
        except (RedisError, OSError) as failure:
            tasks.check_cancelled()
            log.debug("Node %s:%d did not return the slots of the Redis Cluster: %s", *node, failure)
            return None
        return [
            (int(low), int(high), _named((primary[0] or b"").decode(), int(primary[1]), node))
            for low, high, primary, *_ in reply
        ]


def _named(host: str, port: int, asked: Node) -> Node:
    """Return a node as host and port. A node that does not know a host name means the host it was asked at."""
    return (asked[0] if host in ("", "?") else host, port)


class PerNode(Generic[T]):
    """One object for each node, such as a client. When a new node comes, objects of departed nodes are closed."""

    def __init__(self, topology: Topology, make: Callable[[str], T], close: Callable[[T], Awaitable[None]]) -> None:
        """`make` creates the object from the node's URL, and `close` closes it."""
        self._topology = topology
        self._make = make
        self._close = close
        self._kept: dict[Node, T] = {}

    async def get(self, node: Node) -> T:
        """Return the node's object, and create it at the first call."""
        found = self._kept.get(node)
        if found is None:
            found = self._kept[node] = self._make(self._topology.url(node))
            departed = [self._kept.pop(other) for other in self._topology.departed(set(self._kept) - {node})]
            for old in departed:  # removed first, so that no call meanwhile gets or closes one
                await self._close(old)
        return found

    async def aclose(self) -> None:
        """Close every object."""
        while self._kept:
            await self._close(self._kept.popitem()[1])
