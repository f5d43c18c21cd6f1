"""The connections of one process: commands, blocking reads, subscriptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from lifecycle.settings import Settings
from lifecycle.store.pubsub import Subscriptions
from lifecycle.store.redis import Commands, blocking_client, make_client
from lifecycle.store.scripts import Store


@dataclass(slots=True, frozen=True)
class Connections:
    store: Store
    blocking: list[Redis]  # one a shard
    subscriptions: Subscriptions

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Connections]:
        """Nothing is connected before its first use; `subscriptions.run()` is the caller's to run."""
        timeout_secs = settings.redis_timeout_secs
        commands = Commands(make_client(settings.redis_url, socket_timeout_secs=timeout_secs))
        blocking = [blocking_client(settings.redis_url, timeout_secs) for _ in range(settings.shards)]
        listener = make_client(settings.redis_url, socket_timeout_secs=timeout_secs)
        try:
            yield cls(Store(commands, settings), blocking, Subscriptions(listener, timeout_secs=timeout_secs))
        finally:
            await commands.aclose()
            for client in (*blocking, listener):
                await client.aclose()


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Commands only: for the command line."""
    commands = Commands(make_client(settings.redis_url, socket_timeout_secs=settings.redis_timeout_secs))
    try:
        yield Store(commands, settings)
    finally:
        await commands.aclose()
