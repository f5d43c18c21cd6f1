"""The connections of one process: commands, blocking reads, subscriptions; to one server, or to a Cluster's nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from lifecycle.redis_url import Kind, parse
from lifecycle.settings import Settings
from lifecycle.store.listener import Source
from lifecycle.store.pubsub import Subscriptions
from lifecycle.store.redis import BlockingCommands, Commands, blocking_client, make_client
from lifecycle.store.redis_cluster import ClusterCommands
from lifecycle.store.redis_cluster_topology import Node, PerNode, Topology, slot_of
from lifecycle.store.transitions import Store


@dataclass(slots=True, frozen=True)
class Connections:
    store: Store
    blocking: list[Commands]  # blocking reads of one shard's streams, by one reader each
    sources: list[Source]  # of each shard, to listen to what it pushes
    subscriptions: Subscriptions

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Connections]:
        """Nothing is connected before its first use; `subscriptions.run()` is the caller's to run."""
        async with _Deployment.open(settings) as deployment:
            store = Store(deployment.commands, settings)
            blocking = [deployment.blocking() for _ in store.keys.prefixes]
            sources = [deployment.source_of(prefix) for prefix in store.keys.prefixes]
            yield cls(store, blocking, sources, Subscriptions(deployment.source))


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Commands only: for the command line."""
    async with _Deployment.open(settings) as deployment:
        yield Store(deployment.commands, settings)


@asynccontextmanager
async def open_blocking(settings: Settings) -> AsyncIterator[Commands]:
    """Blocking reads, for the command line."""
    async with _Deployment.open(settings) as deployment:
        yield deployment.blocking()


class _Deployment:
    """What is connected to what; closed as a whole."""

    def __init__(
        self, commands: Commands, blocking: Callable[[], Commands], source: Source, source_of: Callable[[str], Source]
    ) -> None:
        """`source`: of what is published to all; `source_of` a prefix: of what is published in its slot."""
        self.commands = commands
        self.blocking = blocking
        self.source = source
        self.source_of = source_of

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[_Deployment]:
        async with AsyncExitStack() as stack:
            cluster = parse(settings.redis_url).kind is Kind.CLUSTER
            yield _cluster(settings, stack) if cluster else _server(settings, stack)


def _server(settings: Settings, stack: AsyncExitStack) -> _Deployment:
    """One server, or the primary behind Sentinels."""
    url, timeout_secs = settings.redis_url, settings.redis_timeout_secs
    commands = Commands(make_client(url, socket_timeout_secs=timeout_secs))
    stack.push_async_callback(commands.aclose)
    subscriber = make_client(url, socket_timeout_secs=timeout_secs)
    stack.push_async_callback(subscriber.aclose)

    def blocking() -> Commands:
        opened = BlockingCommands(blocking_client(url, timeout_secs))
        stack.push_async_callback(opened.aclose)
        return opened

    async def client() -> Redis:
        return subscriber

    source = Source(client, timeout_secs, commands.left)
    return _Deployment(commands, blocking, source, lambda _: source)


def _cluster(settings: Settings, stack: AsyncExitStack) -> _Deployment:
    timeout_secs = settings.redis_timeout_secs

    def make(url: str) -> Redis:
        return make_client(url, socket_timeout_secs=timeout_secs)

    def make_blocking(url: str) -> Redis:
        return blocking_client(url, timeout_secs)

    topology = Topology(parse(settings.redis_url), make)
    stack.push_async_callback(topology.aclose)
    commands = ClusterCommands(topology, make)
    stack.push_async_callback(commands.aclose)
    listeners = PerNode(topology, make, Redis.aclose)
    stack.push_async_callback(listeners.aclose)

    def blocking() -> Commands:
        opened = ClusterCommands(topology, make_blocking, BlockingCommands)
        stack.push_async_callback(opened.aclose)
        return opened

    async def client() -> Redis:
        """Messages reach every node, so any of them will do."""
        return await listeners.get(await topology.some_node())

    def source_of(prefix: str) -> Source:
        served_by: Node | None = None

        async def client() -> Redis:
            nonlocal served_by
            if served_by is not None:  # it was lost, or no longer serves the slot
                topology.mark_stale(served_by)
            served_by = await topology.node_of(slot_of(prefix))
            return await listeners.get(served_by)

        return Source(client, timeout_secs, set())

    return _Deployment(commands, blocking, Source(client, timeout_secs, set()), source_of)
