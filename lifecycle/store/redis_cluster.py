"""Commands and blocking reads over a Redis Cluster. Each goes to the node that serves its Redis key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, TryAgainError

from lifecycle.errors import StoreUnavailable
from lifecycle.store.redis import Commands
from lifecycle.store.redis_cluster_topology import REDIRECTS, Node, PerNode, Topology, slot_of
from lifecycle.store.redis_errors import unavailable

_KEYLESS = frozenset(
    {"PING", "ECHO", "TIME", "INFO", "CONFIG", "CLIENT", "SCAN", "SCRIPT", "CLUSTER", "COMMAND", "PUBLISH"}
)
_KEY_SECOND = frozenset({"XINFO", "OBJECT", "MEMORY"})
_KEY_THIRD = frozenset({"EVAL", "EVALSHA"})
_KEY_BEHIND_STREAMS = frozenset({"XREAD"})


def key_of(args: Sequence[Any]) -> str | bytes | None:
    """Return the Redis key that decides which node gets a command, or None when any node can execute it."""
    name = str(args[0]).upper()
    if name in _KEYLESS:
        return None
    if name in _KEY_BEHIND_STREAMS:
        position = args.index("STREAMS") + 1
    else:
        position = 3 if name in _KEY_THIRD else 2 if name in _KEY_SECOND else 1
    key: str | bytes = args[position]
    return key


class ClusterCommands(Commands):
    """One automatically pipelined connection for each node. All Redis keys of a command must be in one slot."""

    def __init__(
        self, topology: Topology, make: Callable[[str], Redis], kind: Callable[..., Commands] = Commands
    ) -> None:
        """`make` returns a client for a node's URL, and `kind` makes each node's connection."""
        self._topology = topology
        self._links = PerNode(topology, lambda url: kind(make(url), redirected=True), Commands.aclose)

    async def execute(self, *args: Any) -> Any:
        """Execute one command on its node, following up to 5 MOVED redirects. Raises as `Commands.execute` does."""
        key = key_of(args)
        if key is None:
            return await self._on(await self._topology.some_node(), args)
        slot = slot_of(key)
        for _ in range(REDIRECTS):
            node = await self._topology.node_of(slot)
            try:
                return await self._on(node, args)
            except MovedError as moved:
                self._topology.moved(slot, (moved.host, moved.port), node)
            except (AskError, TryAgainError) as moving:  # the map is right until the whole slot has moved
                raise unavailable(moving) or moving from moving
        raise StoreUnavailable(
            f"Redis Cluster redirected a command {REDIRECTS} times: its nodes disagree on which one serves slot {slot}"
        )

    async def _on(self, node: Node, args: Sequence[Any]) -> Any:
        try:
            return await (await self._links.get(node)).execute(*args)
        except StoreUnavailable:
            self._topology.mark_stale(node)
            raise

    async def node_of(self, key: str) -> Commands:
        """Return the client of the node that serves this key's slot. Raises StoreUnavailable when it is not known."""
        return await self._links.get(await self._topology.node_of(slot_of(key)))

    async def nodes(self) -> Sequence[Commands]:
        """Return one client for each primary. Raises StoreUnavailable when no node names them."""
        return [await self._links.get(node) for node in await self._topology.primaries()]

    async def aclose(self) -> None:
        """Close the connections to all nodes."""
        await self._links.aclose()
