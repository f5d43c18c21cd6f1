"""An attempt ends although Redis takes no tokens, or does not say whether it took them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from lifecycle.aio import tasks
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.results import Outcome
from lifecycle.store.transitions import Store
from lifecycle.tokens.writer import ENTRY_TOKENS, TokenSink, TokenWriter
from tests.conftest import MakeSettings, connect
from tests.refusing_redis import RefusingRedis
from tests.unit.world import World, unchecked
from tests.waiting import wait_until

COMPLETED = Outcome("completed", finish_reason="stop")
RETRY_FOR_SECS = 20.0
TIMEOUT_SECS = 0.3


class Bench:
    """One running request on a server of its own, and the sink of its attempt."""

    def __init__(
        self, server: EmbeddedRedis, relay: RefusingRedis, world: World, sink: TokenSink, refused: list[str]
    ) -> None:
        self.server = server
        self.relay = relay
        self.world = world
        self.sink = sink
        self.refused = refused

    def put(self, count: int) -> None:
        for number in range(self.sink.number + 1, self.sink.number + 1 + count):
            self.sink.put(f"{number} ", 4)

    async def put_stuck(self, count: int) -> None:
        """They are in a flush, which Redis refuses."""
        before = self.relay.refused["append"]
        self.put(count)
        await wait_until(lambda: self.relay.refused["append"] > before, what="a refused append")

    async def put_through(self, count: int) -> None:
        self.put(count)
        total = self.sink.number

        async def arrived() -> bool:
            return (await self.world.record()).output_tokens == total

        await wait_until(arrived)

    def refuse_tokens(self) -> None:
        self.relay.refuse("BUSY try again", "append")


@asynccontextmanager
async def _bench(make_settings: MakeSettings) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis(port=0))
        relay = await stack.enter_async_context(RefusingRedis(server.port))
        settings = make_settings(redis_url=relay.url, redis_timeout_secs=TIMEOUT_SECS)
        store = Store(connect(settings), settings)
        world = World(store)
        await world.open()
        await world.run()
        writer = TokenWriter(store, ["w0"])
        refused: list[str] = []
        flushing = asyncio.create_task(writer.run())
        try:
            yield Bench(server, relay, world, writer.open("r", unchecked(), refused.append), refused)
        finally:
            await tasks.end([flushing])
            await store.commands.aclose()


@pytest.fixture
async def bench(make_settings: MakeSettings) -> AsyncIterator[Bench]:
    async with _bench(make_settings) as bench:
        yield bench


def words(count: int) -> str:
    return "".join(f"{number} " for number in range(1, count + 1))


@pytest.mark.parametrize("held", [3, ENTRY_TOKENS + 50])
async def test_while_tokens_are_refused_a_request_ends_with_all_its_tokens(bench: Bench, held: int) -> None:
    await bench.put_through(2)
    bench.refuse_tokens()
    await bench.put_stuck(held)
    async with asyncio.timeout(10):
        ended = await bench.sink.finish(COMPLETED, RETRY_FOR_SECS)
    assert ended.what == "done"
    assert await bench.world.tokens() == words(2 + held)
    bench.relay.accept()
    await bench.world.append(1)  # the flush that was withdrawn from would come now
    assert bench.refused == []
    assert await bench.world.tokens() == words(2 + held)


async def test_while_tokens_are_refused_a_cancel_is_confirmed_at_once(bench: Bench) -> None:
    await bench.put_through(2)
    bench.refuse_tokens()
    await bench.put_stuck(3)
    assert await bench.world.cancel() == "pending"
    async with asyncio.timeout(10):
        ended = await bench.sink.finish(Outcome("cancelled", "cancelled"), RETRY_FOR_SECS)
    assert ended.record is not None
    assert (ended.record.status, ended.record.output_tokens) == ("cancelled", 2)


async def test_while_tokens_are_refused_an_engine_given_up_on_is_reported_as_failed(bench: Bench) -> None:
    """It may go on yielding: what it says after that is of no interest."""
    await bench.put_through(2)
    bench.refuse_tokens()
    await bench.put_stuck(3)
    finishing = asyncio.create_task(bench.sink.finish(Outcome("failed", "response_timeout", "silence"), RETRY_FOR_SECS))
    await asyncio.sleep(0)
    bench.put(3)
    async with asyncio.timeout(10):
        ended = await finishing
    assert ended.record is not None
    assert (ended.record.error_type, ended.record.output_tokens) == ("response_timeout", 5)
    assert await bench.world.tokens() == words(5)


async def test_tokens_come_once_though_nobody_knows_whether_their_append_was_executed(bench: Bench) -> None:
    """The server stands still with the append in its socket: it is executed later, and nobody hears the answer."""
    await bench.put_through(2)
    bench.server.freeze()
    try:
        connections = bench.relay.connections
        bench.put(3)
        # They have been sent, and their connection was given up on: they are being repeated over another one.
        await wait_until(lambda: bench.relay.connections > connections, what="another connection")
        bench.put(2)
        finishing = asyncio.create_task(bench.sink.finish(COMPLETED, RETRY_FOR_SECS))
        await asyncio.sleep(0)
    finally:
        bench.server.thaw()
    async with asyncio.timeout(10):
        assert (await finishing).what == "done"
    assert await bench.world.tokens() == words(7)
    assert await bench.world.pushed("f0") == ["1-2", "1-5", "1-7"]
