"""Redis forbids a command that scripts use: what cannot be read is not unknown, and an end leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.types import CancelMode
from tests.admitting import admit
from tests.servers import ask


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as server:
        yield server


async def test_a_request_is_not_unknown(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        key = store.keys.prefix_of("r1") + "request:r1"
        await store.commands.execute("HSET", key, "status", "running")
        ask(server, "ACL", "SETUSER", "default", "-hgetall")
        with pytest.raises(StoreUnavailable):
            await store.read("r1")


async def test_a_delivery_is_not_dropped(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        ask(server, "ACL", "SETUSER", "default", "-hmget")
        with pytest.raises(StoreUnavailable):
            await store.start("r1", "worker-1", "queue", "m", "1-1")


async def test_an_end_that_cannot_be_published_leaves_nothing(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await admit(store, "r1")
        ask(server, "ACL", "SETUSER", "default", "-spublish")
        with pytest.raises(StoreUnavailable):
            await store.cancel("r1", CancelMode.KILL, "")
        prefix = store.keys.prefix_of("r1")
        assert await store.commands.execute("EXISTS", prefix + "body:r1", prefix + "readers:r1") == 0
        assert await store.commands.execute("PTTL", prefix + "request:r1") > 0
