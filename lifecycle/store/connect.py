"""Opens the Redis connections of one process, to one server, behind Sentinels, or to the nodes of a Redis Cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from redis.asyncio import Redis

from lifecycle.redis_url import Kind, parse
from lifecycle.settings import Settings
from lifecycle.store.listener import ConnectionFactory
from lifecycle.store.pubsub import Subscriptions
from lifecycle.store.redis import BlockingCommands, Commands, blocking_client, make_client
from lifecycle.store.redis_cluster import ClusterCommands
from lifecycle.store.redis_cluster_topology import Node, PerNode, Topology, slot_of
from lifecycle.store.replicated_commands import ReplicatedCommands, Unreplicated
from lifecycle.store.shared_link import SharedLinks
from lifecycle.store.transitions import Store

ReplicatedKind = Callable[..., ReplicatedCommands]
"""Makes the connection to one server of those who wait for its replicas."""


@dataclass(slots=True, frozen=True)
class Connections:
    """The connections of a replica."""

    store: Store
    push_factories: list[ConnectionFactory]  # one for each shard, for listening to its sharded channels
    subscriptions: Subscriptions

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Connections]:
        """Open them for the time of an `async with`. Each one connects at its first use; the caller runs
        `subscriptions.run()`. Raises ValueError when `redis_url` is malformed.
        """
        async with _Deployment.open(settings) as deployment:
            store = deployment.store(settings)
            push_factories = [deployment.shard_factory(prefix) for prefix in store.keys.prefixes]
            yield cls(store, push_factories, Subscriptions(deployment.factory))


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open a Store without blocking reads and subscriptions, for the command line.

    Raises ValueError when `redis_url` is malformed.
    """
    async with _Deployment.open(settings) as deployment:
        yield deployment.store(settings)


@asynccontextmanager
async def open_blocking(settings: Settings) -> AsyncIterator[Commands]:
    """Open one connection for blocking reads, for the command line. Raises ValueError when `redis_url` is malformed."""
    async with _Deployment.open(settings) as deployment:
        yield deployment.blocking()


class _Deployment:
    """Ways to connect to one deployment of Redis. All connections are closed together."""

    def __init__(
        self,
        commands: Commands,
        replicated: Callable[[ReplicatedKind], Commands],
        blocking: Callable[[], Commands],
        factory: ConnectionFactory,
        shard_factory: Callable[[str], ConnectionFactory],
    ) -> None:
        """`replicated` opens the connections of those who wait for replicas.

        `factory` connects to a server that gets the messages published to all, and `shard_factory`, given the prefix of
        a shard, to the server of the shard's slot.
        """
        self.commands = commands
        self.replicated = replicated
        self.blocking = blocking
        self.factory = factory
        self.shard_factory = shard_factory

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[_Deployment]:
        async with AsyncExitStack() as stack:
            cluster = parse(settings.redis_url).kind is Kind.CLUSTER
            yield _cluster(settings, stack) if cluster else _server(settings, stack)

    def store(self, settings: Settings) -> Store:
        replicas, timeout_ms = settings.wait_replicas, settings.wait_timeout_ms
        if not replicas:
            return Store(self.commands, settings)
        unreplicated = Unreplicated(replicas, timeout_ms)
        kind = partial(ReplicatedCommands, replicas=replicas, timeout_ms=timeout_ms, unreplicated=unreplicated)
        return Store(self.commands, settings, replicated=self.replicated(kind), unreplicated=unreplicated)


def _server(settings: Settings, stack: AsyncExitStack) -> _Deployment:
    """Connect to one server, or to the primary behind Sentinels."""
    url, timeout_secs, password_file = settings.redis_url, settings.redis_timeout_secs, settings.redis_password_file
    commands = Commands(make_client(url, socket_timeout_secs=timeout_secs, password_file=password_file))
    stack.push_async_callback(commands.aclose)
    subscriber = make_client(url, socket_timeout_secs=timeout_secs, password_file=password_file)
    stack.push_async_callback(subscriber.aclose)

    def replicated(kind: ReplicatedKind) -> Commands:
        opened = kind(make_client(url, socket_timeout_secs=timeout_secs, password_file=password_file))
        stack.push_async_callback(opened.aclose)
        return opened

    def blocking() -> Commands:
        opened = BlockingCommands(blocking_client(url, timeout_secs, password_file))
        stack.push_async_callback(opened.aclose)
        return opened

    async def client() -> Redis:
        return subscriber

    factory = ConnectionFactory(client, timeout_secs, commands.on_demotion)
    of_shards = factory._replace(shared=SharedLinks())
    return _Deployment(commands, replicated, blocking, factory, lambda _: of_shards)


def _cluster(settings: Settings, stack: AsyncExitStack) -> _Deployment:
    """Connect to the nodes of a Redis Cluster."""
    timeout_secs, password_file = settings.redis_timeout_secs, settings.redis_password_file

    def make(url: str) -> Redis:
        return make_client(url, socket_timeout_secs=timeout_secs, password_file=password_file)

    def make_blocking(url: str) -> Redis:
        return blocking_client(url, timeout_secs, password_file)

    topology = Topology(parse(settings.redis_url), make)
    stack.push_async_callback(topology.aclose)
    commands = ClusterCommands(topology, make)
    stack.push_async_callback(commands.aclose)
    listeners = PerNode(topology, make, Redis.aclose)
    stack.push_async_callback(listeners.aclose)

    def replicated(kind: ReplicatedKind) -> Commands:
        opened = ClusterCommands(topology, make, kind)
        stack.push_async_callback(opened.aclose)
        return opened

    def blocking() -> Commands:
        opened = ClusterCommands(topology, make_blocking, BlockingCommands)
        stack.push_async_callback(opened.aclose)
        return opened

    async def client() -> Redis:
        """Return a client of any node: a Cluster broadcasts what is published without a slot."""
        return await listeners.get(await topology.some_node())

    shared = SharedLinks()

    def shard_factory(prefix: str) -> ConnectionFactory:
        served_by: Node | None = None

        async def client() -> Redis:
            nonlocal served_by
            if served_by is not None:  # its connection was lost, or it no longer serves the slot
                topology.mark_stale(served_by)
            served_by = await topology.node_of(slot_of(prefix))
            return await listeners.get(served_by)

        return ConnectionFactory(client, timeout_secs, set(), shared)

    return _Deployment(commands, replicated, blocking, ConnectionFactory(client, timeout_secs, set()), shard_factory)
