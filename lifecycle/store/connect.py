"""The connections of one process: commands, blocking reads, subscriptions; to one server, or to a Cluster's nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from lifecycle.address import Kind, parse
from lifecycle.settings import Settings
from lifecycle.store.cluster_commands import ClusterCommands, ClusterReads
from lifecycle.store.keys import Keys
from lifecycle.store.pubsub import Subscriptions
from lifecycle.store.redis import Commands, blocking_client, make_client
from lifecycle.store.scripts import Store
from lifecycle.store.topology import PerNode, Topology

Reads = Redis | ClusterReads
"""Blocking reads of one shard's streams: `xread`, `xreadgroup`, `xgroup_create`."""


@dataclass(slots=True, frozen=True)
class Connections:
    store: Store
    blocking: list[Reads]  # one a shard
    subscriptions: Subscriptions

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Connections]:
        """Nothing is connected before its first use; `subscriptions.run()` is the caller's to run."""
        async with _Deployment.open(settings) as deployment:
            store = Store(deployment.commands, settings)
            blocking = [deployment.reads(prefix) for prefix in store.keys.prefixes]
            timeout_secs = settings.redis_timeout_secs
            yield cls(store, blocking, Subscriptions(deployment.listener, timeout_secs=timeout_secs))


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Commands only: for the command line."""
    async with _Deployment.open(settings) as deployment:
        yield Store(deployment.commands, settings)


@asynccontextmanager
async def open_reads(settings: Settings, rid: str) -> AsyncIterator[Reads]:
    """Blocking reads of one request's streams."""
    async with _Deployment.open(settings) as deployment:
        yield deployment.reads(Keys(settings.namespace, settings.shards).prefix_of(rid))


class _Deployment:
    """What is connected to what; closed as a whole."""

    def __init__(self, commands: Commands, reads: Callable[[str], Reads], listener: Callable[[], Awaitable[Redis]]):
        self.commands = commands
        self.reads = reads
        self.listener = listener

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

    def reads(prefix: str) -> Redis:
        client = blocking_client(url, timeout_secs)
        stack.push_async_callback(client.aclose)
        return client

    async def listener() -> Redis:
        return subscriber

    return _Deployment(commands, reads, listener)


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
    readers = PerNode(topology, make_blocking, Redis.aclose)
    stack.push_async_callback(readers.aclose)
    listeners = PerNode(topology, make, Redis.aclose)
    stack.push_async_callback(listeners.aclose)

    def reads(prefix: str) -> ClusterReads:
        return ClusterReads(topology, readers, prefix)

    async def listener() -> Redis:
        """Messages reach every node, so any of them will do."""
        return await listeners.get(await topology.some_node())

    return _Deployment(commands, reads, listener)
