"""The number of readers in Redis becomes right even if writes of it arrive late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.ids import START
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.transitions import Store
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.readers import Readers
from tests.conftest import MakeSettings, connect
from tests.unit.world import World
from tests.waiting import wait_until

TIMEOUT_SECS = 0.3


class Bench:
    """A running request, owned by f0 and read at f1, on a server that can stand still."""

    def __init__(self, server: EmbeddedRedis, world: World, group: asyncio.TaskGroup) -> None:
        def spawn(work: Coroutine[Any, Any, None], name: str) -> None:
            self.tasks.append(group.create_task(work, name=name))

        self.server = server
        self.world = world
        self.tasks: list[asyncio.Task[None]] = []
        self.readers = Readers(world.store, FrontendState(id="f1"), spawn)

    async def attach(self) -> TokenReader:
        attached = await self.readers.attach("r", START)
        assert attached is not None
        return attached[1]

    async def counted(self) -> int | None:
        count = await self.world.store.command("HGET", f"{self.world.prefix}readers:r", "f1")
        return None if count is None else int(count)


@pytest.fixture
async def bench(make_settings: MakeSettings) -> AsyncIterator[Bench]:
    with EmbeddedRedis() as server:
        settings = make_settings(redis_url=server.url, redis_timeout_secs=TIMEOUT_SECS, lease_secs=20.0)
        store = Store(connect(settings), settings)
        world = World(store)
        await world.open()
        await world.run(on_disconnect="continue")
        async with asyncio.TaskGroup() as group:
            yield Bench(server, world, group)
        await store.commands.aclose()


async def test_who_comes_while_the_last_reader_leaves_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    call = Store._call

    async def noted(self: Store, name: str, *args: Any) -> Any:
        calls.append(name)
        return await call(self, name, *args)

    monkeypatch.setattr(Store, "_call", noted)
    first = await bench.attach()
    bench.server.freeze()
    try:
        leaving = asyncio.create_task(
            bench.readers.detach(first, ConnectionStatus.CLOSED_UNEXPECTEDLY, admitting=False)
        )
        await wait_until(lambda: calls.count("disconnect") > 1, what="a repetition of what has not been heard")
    finally:
        bench.server.thaw()
    async with asyncio.timeout(10):
        second = await bench.attach()
        await leaving
    assert await bench.counted() == 1
    await bench.readers.detach(second, ConnectionStatus.CLOSED_UNEXPECTEDLY, admitting=False)
    assert await bench.counted() is None
    assert bench.readers.feeds == {}


async def test_a_reader_that_leaves_is_reported_however_long_redis_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = 0
    disconnect = Store.disconnect

    async def noted(self: Store, *args: Any, **more: Any) -> Any:
        nonlocal reports
        reports += 1
        return await disconnect(self, *args, **more)

    monkeypatch.setattr(Store, "disconnect", noted)
    reader = await bench.attach()
    bench.world.store.settings = bench.world.store.settings.model_copy(
        update={"lease_secs": 0.5, "heartbeat_secs": 0.05}
    )
    bench.server.freeze()
    try:
        leaving = asyncio.create_task(
            bench.readers.detach(reader, ConnectionStatus.CLOSED_UNEXPECTEDLY, admitting=False)
        )
        await wait_until(lambda: reports == 2, what="a report after the first was given up")
    finally:
        bench.server.thaw()
    disconnection = await leaving
    assert disconnection is not None
    assert disconnection.what == "continues"
    assert await bench.counted() is None
    assert bench.readers.feeds == {}


async def test_readers_that_redis_has_lost_are_told_again(bench: Bench) -> None:
    """A failover may have lost that one has come, and that the last one has left."""
    key, command = f"{bench.world.prefix}readers:r", bench.world.store.command
    reader = await bench.attach()
    await command("HDEL", key, "f1")
    await bench.readers.reports.again(0)
    assert await bench.counted() == 1
    await bench.readers.detach(reader, ConnectionStatus.CLOSED_UNEXPECTEDLY, admitting=False)
    await command("HSET", key, "f1", 1)
    bench.world.store.settings = bench.world.store.settings.model_copy(update={"heartbeat_secs": 0.05})
    await bench.readers.reports.again(0)
    assert await bench.counted() is None
    await command("HSET", key, "f1", 1)
    bench.readers.end_shard(0, "frontend_lost", "")
    await bench.readers.reports.again(0)
    assert await bench.counted() == 1, "a shard in which the lease has expired judges that by itself"


async def test_a_reader_that_did_not_come_to_be_is_not_counted(bench: Bench) -> None:
    """Redis has executed the attach, and its answer came too late."""
    bench.server.freeze()
    try:
        with pytest.raises(StoreUnavailable):
            await bench.attach()
    finally:
        bench.server.thaw()

    async def settled() -> bool:
        return bool(bench.tasks) and all(task.done() for task in bench.tasks) and await bench.counted() is None

    await wait_until(settled)
    assert bench.readers.feeds == {}
