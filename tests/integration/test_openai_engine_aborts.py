"""The openai engine whose request is stopped, killed or cancelled: it closes the upstream connection in every phase."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from lifecycle.execution.context import EngineContext
from tests.upstream import (
    BOUND_SECS,
    DONE,
    REQUEST,
    Exchange,
    Script,
    Serve,
    chunk,
    collect,
    playing,
    silent_after,
    within_bound,
)

ENDINGS = [EngineContext.stop, EngineContext.kill]


@pytest.mark.parametrize("end", ENDINGS)
async def test_ends_while_the_upstream_is_silent(serve: Serve, end: Callable[[EngineContext], None]) -> None:
    upstream, engine = await serve(silent_after(chunk("a")))
    context = EngineContext("r")
    answer = engine(REQUEST, context)
    async with asyncio.timeout(BOUND_SECS):
        assert await anext(answer) == "a"
        rest = asyncio.ensure_future(anext(answer, "ended"))
        await asyncio.sleep(0)
        end(context)
        assert await rest == "ended"
        await upstream.client_left.wait()


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("script", [silent_after(head=False), silent_after()], ids=["before headers", "before a token"])
async def test_ends_before_the_first_token(serve: Serve, script: Script, end: Callable[[EngineContext], None]) -> None:
    upstream, engine = await serve(script)
    context = EngineContext("r")
    everything = asyncio.create_task(collect(engine, context=context))
    await within_bound(upstream.received)
    end(context)
    assert await asyncio.wait_for(everything, BOUND_SECS) == []
    await within_bound(upstream.client_left)


async def test_ends_between_two_tokens_of_one_packet(serve: Serve) -> None:
    upstream, engine = await serve(silent_after(chunk("a") + chunk("b") + chunk("c")))
    context = EngineContext("r")
    said = []
    async with asyncio.timeout(BOUND_SECS):
        async for token in engine(REQUEST, context):
            said.append(token)
            context.stop()
    assert said == ["a"]
    await within_bound(upstream.client_left)


async def test_never_asks_once_it_is_stopped(serve: Serve) -> None:
    upstream, engine = await serve(playing(DONE))
    context = EngineContext("r")
    context.stop()
    assert await collect(engine, context=context) == []
    assert upstream.connections == 0


@pytest.mark.parametrize("script", [silent_after(head=False), silent_after(), silent_after(chunk("a"))])
async def test_a_cancelled_task_closes_the_connection(serve: Serve, script: Script) -> None:
    upstream, engine = await serve(script)
    everything = asyncio.create_task(collect(engine))
    await within_bound(upstream.received)
    everything.cancel()
    with pytest.raises(asyncio.CancelledError):
        await everything
    await within_bound(upstream.client_left)


async def test_a_closed_generator_closes_the_connection(serve: Serve) -> None:
    upstream, engine = await serve(silent_after(chunk("a") + chunk("b")))
    async with asyncio.timeout(BOUND_SECS), aclosing(engine(REQUEST, EngineContext("r"))) as answer:  # type: ignore[type-var]
        assert await anext(answer) == "a"
    await within_bound(upstream.client_left)


async def test_a_stopped_request_leaves_the_others_alone(serve: Serve) -> None:
    released = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(chunk("a"))
        await released.wait()
        await exchange.send(chunk("b") + DONE)
        await exchange.end()

    _, engine = await serve(script)
    contexts = [EngineContext(f"r-{i}") for i in range(20)]
    answers = [engine(REQUEST, context) for context in contexts]
    async with asyncio.timeout(BOUND_SECS):
        assert await asyncio.gather(*(anext(answer) for answer in answers)) == ["a"] * 20
        contexts[0].kill()
        assert await anext(answers[0], "ended") == "ended"
        released.set()
        assert await asyncio.gather(*(anext(answer) for answer in answers[1:])) == ["b"] * 19
        for answer in answers:
            assert [token async for token in answer] == []
