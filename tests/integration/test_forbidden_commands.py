"""Redis forbids a command that scripts use: what cannot be read is not unknown, and an end leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.results import Start
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, ErrorType
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


async def test_a_cancel_that_cannot_be_published_is_noted_for_the_worker(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await _start(store, "r1")
        ask(server, "ACL", "SETUSER", "default", "-spublish", "-publish")
        with pytest.raises(StoreUnavailable):
            await store.cancel("r1", CancelMode.KILL, "")
        assert await _noted(store, "r1")


async def test_a_failure_that_cannot_be_published_is_noted_for_the_worker(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await _start(store, "r1")
        await store.cancel("r1", CancelMode.STOP, "")
        ask(server, "ACL", "SETUSER", "default", "-spublish", "-publish")
        with pytest.raises(StoreUnavailable):
            await store.fail("r1", ErrorType.RESPONSE_TIMEOUT, "The worker was silent")
        assert await _noted(store, "r1")


async def test_a_disconnect_that_cannot_be_published_takes_effect(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await _start(store, "r1")
        ask(server, "ACL", "SETUSER", "default", "-spublish", "-publish")
        with pytest.raises(StoreUnavailable):
            await store.disconnect("r1", "f0", 0, "closed_unexpectedly", admitting=True)
        record = await store.read("r1")
        assert record is not None
        assert record.cancel_requested_at is not None
        assert await _noted(store, "r1")


async def _start(store: Store, rid: str) -> None:
    """Admit a request and start an attempt at worker-1."""
    await admit(store, rid)
    entry = await store.commands.execute("HGET", store.keys.prefix_of(rid) + "request:" + rid, "entry")
    assert isinstance(await store.start(rid, "worker-1", "queue", "m", entry.decode()), Start)


async def _noted(store: Store, rid: str) -> bool:
    """Return whether the next reconciliation of worker-1 is going to cancel the request."""
    key = store.keys.prefix_of(rid) + "pending_cancellations:worker-1"
    return bool(await store.commands.execute("SISMEMBER", key, rid))
