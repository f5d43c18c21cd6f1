"""Opens the Redis connections of one process, to one server, behind Sentinels, or to the nodes of a Redis Cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from redis.asyncio import Redis

from lifecycle.redis_url import Kind, parse
from lifecycle.settings import Settings
from lifecycle.store.listener import ConnectionFactory
from lifecycle.store.password_file import PasswordFiles
from lifecycle.store.pubsub import Subscriptions
from lifecycle.store.redis import BLOCK_MS, BlockingCommands, Commands, make_client
from lifecycle.store.redis_cluster import ClusterCommands
from lifecycle.store.redis_cluster_topology import Node, PerNode, Topology, slot_of
from lifecycle.store.replicated_commands import ReplicatedCommands, Unreplicated
from lifecycle.store.shared_link import SharedLinks
from lifecycle.store.transitions import Store

MakeClient = Callable[[str], Redis]
"""Makes the client of a server from its URL."""


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
            store = deployment.store()
            push_factories = [deployment.shard_factory(prefix) for prefix in store.keys.prefixes]
            yield cls(store, push_factories, Subscriptions(deployment.factory))


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open a Store without blocking reads and subscriptions, for the command line.

    Raises ValueError when `redis_url` is malformed.
    """
    async with _Deployment.open(settings) as deployment:
        yield deployment.store()


@asynccontextmanager
async def open_blocking(settings: Settings) -> AsyncIterator[Commands]:
    """Open one connection for blocking reads, for the command line. Raises ValueError when `redis_url` is malformed."""
    async with _Deployment.open(settings) as deployment:
        yield deployment.blocking()


def password_files(settings: Settings) -> PasswordFiles:
    """Return the files that the settings name."""
    return PasswordFiles(settings.redis_password_file, settings.redis_sentinel_password_file)


class _Deployment(ABC):
    """Ways to connect to one deployment of Redis. All connections are closed together.

    `commands` is the connection for all commands that wait for nothing. `factory` connects to a server that gets the
    messages published to all.
    """

    commands: Commands
    factory: ConnectionFactory

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        """The connections are closed with `stack`."""
        self._settings = settings
        self._stack = stack
        self._timeout_secs = settings.redis_timeout_secs
        self._passwords = password_files(settings)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[_Deployment]:
        async with AsyncExitStack() as stack:
            cluster = parse(settings.redis_url).kind is Kind.CLUSTER
            yield _Cluster(settings, stack) if cluster else _Server(settings, stack)

    @abstractmethod
    def shard_factory(self, prefix: str) -> ConnectionFactory:
        """Return what connects to the server of the slot of this shard's prefix."""

    @abstractmethod
    def _connect(self, make: MakeClient, kind: Callable[..., Commands]) -> Commands:
        """Return commands to the whole deployment: `kind` sends them to one server, whose client `make` makes."""

    def store(self) -> Store:
        replicas, timeout_ms = self._settings.wait_replicas, self._settings.wait_timeout_ms
        if not replicas:
            return Store(self.commands, self._settings)
        unreplicated = Unreplicated(replicas, timeout_ms)
        kind = partial(ReplicatedCommands, replicas=replicas, timeout_ms=timeout_ms, unreplicated=unreplicated)
        replicated = self._open(self._make, kind)
        return Store(self.commands, self._settings, replicated=replicated, unreplicated=unreplicated)

    def blocking(self) -> Commands:
        return self._open(partial(self._make, block_secs=BLOCK_MS / 1000), BlockingCommands)

    def _make(self, url: str, block_secs: float = 0.0) -> Redis:
        """Return a client for replies that Redis itself may delay by `block_secs`."""
        return make_client(url, socket_timeout_secs=block_secs + self._timeout_secs, passwords=self._passwords)

    def _open(self, make: MakeClient, kind: Callable[..., Commands]) -> Commands:
        opened = self._connect(make, kind)
        self._stack.push_async_callback(opened.aclose)
        return opened


class _Server(_Deployment):
    """One server, or the primary behind Sentinels."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        super().__init__(settings, stack)
        self.commands = self._open(self._make, Commands)
        subscriber = self._make(settings.redis_url)
        stack.push_async_callback(subscriber.aclose)

        async def client() -> Redis:
            return subscriber

        self.factory = ConnectionFactory(client, self._timeout_secs, self.commands.on_demotion)
        self._of_shards = self.factory._replace(shared=SharedLinks())

    def shard_factory(self, prefix: str) -> ConnectionFactory:
        return self._of_shards

    def _connect(self, make: MakeClient, kind: Callable[..., Commands]) -> Commands:
        return kind(make(self._settings.redis_url))


class _Cluster(_Deployment):
    """The nodes of a Redis Cluster."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        super().__init__(settings, stack)
        self._topology = Topology(parse(settings.redis_url), self._make)
        stack.push_async_callback(self._topology.aclose)
        self.commands = self._open(self._make, Commands)
        self._listeners = PerNode(self._topology, self._make, Redis.aclose)
        stack.push_async_callback(self._listeners.aclose)
        self._shared = SharedLinks()

        async def client() -> Redis:
            """Return a client of any node: a Cluster broadcasts what is published without a slot."""
            return await self._listeners.get(await self._topology.some_node())

        self.factory = ConnectionFactory(client, self._timeout_secs, set())

    def shard_factory(self, prefix: str) -> ConnectionFactory:
        served_by: Node | None = None

        async def client() -> Redis:
            nonlocal served_by
            if served_by is not None:  # its connection was lost, or it no longer serves the slot
                self._topology.mark_stale(served_by)
            served_by = await self._topology.node_of(slot_of(prefix))
            return await self._listeners.get(served_by)

        return ConnectionFactory(client, self._timeout_secs, set(), self._shared)

    def _connect(self, make: MakeClient, kind: Callable[..., Commands]) -> Commands:
        return ClusterCommands(self._topology, make, kind)
