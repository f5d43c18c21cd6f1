"""The openai engine in front of a server on a real socket: what it sends, and how it reads the answer."""

from __future__ import annotations

import pytest

from lifecycle.execution.context import EngineContext
from tests.upstream import (
    DONE,
    REQUEST,
    USAGE,
    Serve,
    chunk,
    collect,
    playing,
    silent_after,
    text_chunk,
    within_bound,
)
from worker.engines import close_engine
from worker.engines.openai import OpenAIEngine


async def test_a_chat_passes_through(serve: Serve) -> None:
    upstream, engine = await serve(
        playing(
            'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
            chunk("Hel"),
            chunk(None),
            ": keepalive\n\n" + chunk("lo"),
            chunk("!", finish_reason="length"),
            USAGE,
            DONE,
        )
    )
    context = EngineContext("chat-1", attempt=2)
    context.traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    request = {**REQUEST, "temperature": 0.5, "stream": False, "stream_options": {"other": 1}}
    assert await collect(engine, request, context) == ["Hel", "lo", "!"]
    assert (context.finish_reason, context.input_tokens) == ("length", 7)

    [exchange] = upstream.exchanges
    assert exchange.path == "/v1/chat/completions"
    assert exchange.headers["authorization"] == "Bearer secret"
    assert exchange.headers["x-request-id"] == "chat-1.2"
    assert exchange.headers["traceparent"] == context.traceparent
    assert exchange.body == {**request, "stream": True, "stream_options": {"other": 1, "include_usage": True}}


async def test_a_completion_passes_through(serve: Serve) -> None:
    upstream, engine = await serve(playing(text_chunk("a"), text_chunk("b", finish_reason="stop"), DONE))
    context = EngineContext("r")
    assert await collect(engine, {"model": "m", "prompt": "p"}, context) == ["a", "b"]
    assert context.finish_reason == "stop"
    assert upstream.exchanges[0].path == "/v1/completions"


async def test_a_bare_host_gets_the_usual_path(serve: Serve) -> None:
    upstream, _ = await serve(playing(chunk("x"), DONE))
    engine = OpenAIEngine(upstream.url.removesuffix("/v1"))
    assert await collect(engine) == ["x"]
    assert upstream.exchanges[0].path == "/v1/chat/completions"
    assert "authorization" not in upstream.exchanges[0].headers
    await close_engine(engine)


async def test_an_answer_may_be_cut_anywhere(serve: Serve) -> None:
    wire = (chunk("grün") + chunk("😀") + DONE).replace("\n", "\r\n").encode()
    _, engine = await serve(playing(*(wire[i : i + 1] for i in range(len(wire)))))
    assert await collect(engine) == ["grün", "😀"]


@pytest.mark.parametrize(
    "ending", [[chunk("x"), DONE], [chunk("x", finish_reason="stop")], [chunk("x"), "data: [DONE]"]]
)
async def test_either_sign_of_the_end_is_enough(serve: Serve, ending: list[str]) -> None:
    _, engine = await serve(playing(*ending))
    assert await collect(engine) == ["x"]


async def test_a_connection_torn_after_the_end_does_no_harm(serve: Serve) -> None:
    _, engine = await serve(playing(chunk("x", finish_reason="stop"), finish=False))
    assert await collect(engine) == ["x"]


async def test_an_upstream_that_leaves_the_body_open_does_not_hold_the_answer(serve: Serve) -> None:
    upstream, engine = await serve(silent_after(chunk("x"), DONE))
    assert await collect(engine) == ["x"]
    await within_bound(upstream.client_left)


async def test_a_connection_is_used_again(serve: Serve) -> None:
    upstream, engine = await serve(playing(chunk("x"), DONE))
    for _ in range(3):
        assert await collect(engine) == ["x"]
    assert (upstream.connections, len(upstream.exchanges)) == (1, 3)


async def test_an_engine_can_be_used_after_it_was_closed(serve: Serve) -> None:
    upstream, engine = await serve(playing(chunk("x"), DONE))
    await collect(engine)
    await close_engine(engine)
    assert await collect(engine) == ["x"]
    assert upstream.connections == 2
