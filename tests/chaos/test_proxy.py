"""The bench itself: the proxy breaks what it is told to, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.store.redis import Commands, make_client
from lifecycle.store.transitions import Store
from tests.chaos.proxy import FaultProxy, Then
from tests.conftest import MakeSettings
from tests.waiting import wait_until

Broken = Callable[[FaultProxy], None]


@asynccontextmanager
async def _through(proxy: FaultProxy, timeout_secs: float = 0.3) -> AsyncIterator[Commands]:
    commands = Commands(make_client(proxy.url, socket_timeout_secs=timeout_secs))
    try:
        yield commands
    finally:
        await commands.aclose()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
def key(store: Store) -> str:
    """A declared one, so that the test may leave it."""
    return store.keys.prefixes[0] + "epoch"


async def test_it_passes(proxy: FaultProxy, key: str) -> None:
    async with _through(proxy) as commands:
        assert await commands.execute("SET", key, "x" * 300_000) == b"OK"
        assert len(await commands.execute("GET", key)) == 300_000
        assert proxy.links == 1
    await wait_until(lambda: proxy.links == 0)


async def test_it_delays_both_ways(proxy: FaultProxy, key: str) -> None:
    async with _through(proxy, 5.0) as commands:
        await commands.execute("PING")
        proxy.delay_secs = 0.05
        before = time.monotonic()
        await commands.execute("INCR", key)
        assert time.monotonic() - before >= 0.1


async def test_what_a_blackhole_holds_comes_late(proxy: FaultProxy, store: Store, key: str) -> None:
    async with _through(proxy) as commands:
        await commands.execute("PING")
        proxy.blackhole()
        for _ in range(2):  # on the open connection, and on a new one, which does not get as far as its command
            with pytest.raises(StoreUnavailable):
                await commands.execute("INCR", key)
        assert await store.commands.execute("GET", key) is None
        proxy.restore()

        async def executed() -> bool:
            return bool(await store.commands.execute("GET", key) == b"1")

        await wait_until(executed)


async def test_a_cut_resets_what_is_open_and_refuses_what_is_new(proxy: FaultProxy) -> None:
    async with _through(proxy) as commands:
        await commands.execute("PING")
        waiting = asyncio.create_task(commands.execute("BLPOP", "nothing", "0"))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await waiting
        with pytest.raises(StoreUnavailable):
            await commands.execute("PING")
        proxy.restore()
        assert await commands.execute("PING") == b"PONG"


@pytest.mark.parametrize("then", [Then.SWALLOW, Then.RESET])
async def test_a_lost_reply_means_executed_and_never_confirmed(
    proxy: FaultProxy, store: Store, key: str, then: Then
) -> None:
    async with _through(proxy) as commands:
        await commands.execute("PING")
        rule = proxy.on_request(b"INCR", then)
        with pytest.raises(StoreUnavailable):
            await commands.execute("INCR", key)
        await rule.fired()
        assert await store.commands.execute("GET", key) == b"1"
        assert await commands.execute("INCR", key) == 2  # once


async def test_a_lost_request_is_not_executed(proxy: FaultProxy, store: Store, key: str) -> None:
    async with _through(proxy) as commands:
        await commands.execute("PING")
        rule = proxy.on_request(b"INCR", Then.LOSE)
        with pytest.raises(StoreUnavailable):
            await commands.execute("INCR", key)
        await rule.fired()
        assert await store.commands.execute("GET", key) is None


async def test_a_pattern_may_lie_across_two_chunks_and_matches_once(proxy: FaultProxy) -> None:
    rule = proxy.on_request(b"PING", Then.DROP, times=2)
    first, last = (proxy.on_request(part, Then.DROP) for part in (b"$4\r\nPI", b"x"))
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(b"*1\r\n$4\r\nPI")
        await first.fired()
        writer.write(b"NG\r\n")
        await wait_until(lambda: rule.count == 1)
        writer.write(b"x")
        await last.fired()
        assert rule.count == 1
    finally:
        writer.close()


async def test_settings_take_its_url(proxy: FaultProxy, make_settings: MakeSettings) -> None:
    assert proxy.url.startswith("redis://127.0.0.1:")
    async with _through(proxy) as commands:
        assert await Store(commands, make_settings(redis_url=proxy.url)).roster()
