"""The openai engine in front of a server on a real socket: what it sends, how it reads the answer, how it aborts."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import orjson
import pytest

from lifecycle.errors import EngineError, LifecycleError, NotConnected, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.execution.declarations import max_model_lens
from lifecycle.execution.engine import aclose
from tests.upstream import (
    DONE,
    REQUEST,
    USAGE,
    Exchange,
    Serve,
    chunk,
    collect,
    failing,
    failure,
    playing,
    silent_after,
    text_chunk,
    within_bound,
)
from worker.engines.openai import OpenAIEngine
from worker.engines.upstream_errors import KEY_REFUSED

# answers


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
    assert await collect(engine, request, context) == [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        "Hel",
        {"choices": [{"index": 0, "delta": {"content": None}}]},
        "lo",
        "!",
    ]
    assert (context.finish_reason, context.input_tokens) == ("length", 7)
    assert context.usage == {"prompt_tokens": 7, "completion_tokens": 2}

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


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1], [2]]])
async def test_a_body_reaches_the_upstream_as_it_came(serve: Serve, prompt: Any) -> None:
    upstream, engine = await serve(playing(DONE))
    request = {
        "model": "m",
        "prompt": prompt,
        "seed": 2**70 + 1,
        "n": 2,
        "vendor": {"x": [None, 1.5, "\N{SNOWMAN}"]},
        "stream_options": {"include_usage": False, "continuous_usage_stats": True},
    }
    await collect(engine, request)
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert upstream.exchanges[0].body == {**request, "stream": True, "stream_options": options}


async def test_the_calls_headers_reach_the_upstream(serve: Serve) -> None:
    upstream, engine = await serve(playing(DONE))
    context = EngineContext("r")
    context.headers = {"x-session-id": "s", "authorization": "Bearer mine", "Host": "elsewhere"}
    await collect(engine, REQUEST, context)
    headers = upstream.exchanges[0].headers
    assert (headers["x-session-id"], headers["authorization"]) == ("s", "Bearer secret")
    assert headers["host"] != "elsewhere"


async def test_credentials_in_the_url_are_sent_as_basic_authentication(serve: Serve) -> None:
    upstream, _ = await serve(playing(DONE))
    engine = OpenAIEngine(upstream.url.replace("://", "://bob:hunter2@") + "?version=1")
    await collect(engine)
    assert upstream.exchanges[0].headers["authorization"] == "Basic Ym9iOmh1bnRlcjI="
    assert upstream.exchanges[0].path == "/v1/chat/completions?version=1"
    await aclose(engine)


async def test_a_bare_host_gets_the_usual_path(serve: Serve) -> None:
    upstream, _ = await serve(playing(chunk("x"), DONE))
    engine = OpenAIEngine(upstream.url.removesuffix("/v1"))
    assert await collect(engine) == ["x"]
    assert upstream.exchanges[0].path == "/v1/chat/completions"
    assert "authorization" not in upstream.exchanges[0].headers
    await aclose(engine)


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


async def test_an_answer_ends_soon_behind_its_finish_reason(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(chunk("x", finish_reason="stop"))
        while True:
            await exchange.send(": ping\n\n")
            await asyncio.sleep(0.02)

    upstream, engine = await serve(script)
    began = time.monotonic()
    assert await collect(engine) == ["x"]
    assert time.monotonic() - began < 1.5
    await within_bound(upstream.client_left)


async def test_the_usage_may_come_a_moment_behind_the_finish_reason(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(chunk("x", finish_reason="stop"))
        await asyncio.sleep(0.1)
        await exchange.send(USAGE + DONE)
        await exchange.end()

    _, engine = await serve(script)
    context = EngineContext("r")
    assert await collect(engine, REQUEST, context) == ["x"]
    assert context.input_tokens == 7


async def test_a_json_answer_to_a_streaming_call_is_used(serve: Serve) -> None:
    answer = '{"choices":[{"index":0,"message":{"role":"assistant","content":"whole"},"finish_reason":"length"}]}'
    _, engine = await serve(playing(answer, kind="application/json"))
    context = EngineContext("r")
    assert await collect(engine, REQUEST, context) == ["whole"]
    assert context.finish_reason == "length"


async def test_a_connection_is_used_again(serve: Serve) -> None:
    upstream, engine = await serve(playing(chunk("x"), DONE))
    for _ in range(3):
        assert await collect(engine) == ["x"]
    assert (upstream.connections, len(upstream.exchanges)) == (1, 3)


async def test_an_engine_can_be_used_after_it_was_closed(serve: Serve) -> None:
    upstream, engine = await serve(playing(chunk("x"), DONE))
    await collect(engine)
    await aclose(engine)
    assert await collect(engine) == ["x"]
    assert upstream.connections == 2


async def test_the_upstreams_models_are_listed(serve: Serve) -> None:
    upstream, engine = await serve(playing('{"data":[{"id":"a"},{"id":"b"}]}', kind="application/json"))
    assert await engine.models() == ["a", "b"]
    assert upstream.exchanges[0].path == "/v1/models"
    assert upstream.exchanges[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("listed", "lengths"),
    [
        ([{"id": "a", "max_model_len": 8192}, {"id": "b"}], {"a": 8192}),  # vLLM, SGLang
        ([{"id": "a.gguf", "meta": {"n_ctx_train": 131072, "n_ctx": 4096}}], {"a": 4096, "b": 4096}),  # llama.cpp
        ([{"id": "a", "meta": {"n_ctx_train": 131072}}], {}),
        ([{"id": "a", "max_model_len": None, "meta": None}, {"id": "b", "max_model_len": "8192"}], {}),
    ],
)
async def test_the_upstream_tells_how_long_its_models_are(
    serve: Serve, listed: list[dict[str, Any]], lengths: dict[str, int]
) -> None:
    _, engine = await serve(playing(orjson.dumps({"data": listed}), kind="application/json"))
    await engine.health()
    assert max_model_lens(engine, ["a", "b"]) == lengths


async def test_an_upstream_that_is_away_is_not_healthy() -> None:
    engine = OpenAIEngine("http://127.0.0.1:1/v1")
    with pytest.raises(NotConnected, match="cannot connect to the upstream"):
        await engine.health()
    assert max_model_lens(engine, ["a"]) == {}
    await aclose(engine)


@pytest.mark.parametrize(
    ("status", "healthy"), [("401 No", True), ("404 No", True), ("502 No", False), ("503 No", False)]
)
async def test_an_upstream_that_answers_is_healthy_unless_a_gateway_says_otherwise(
    serve: Serve, status: str, healthy: bool
) -> None:
    _, engine = await serve(playing("{}", status=status, kind="application/json"))
    with nullcontext() if healthy else pytest.raises(Unavailable):
        await engine.health()


@pytest.mark.parametrize("body", ["", "[]", '{"data":[]}', '{"data":[{"id":7}]}', '{"error":{"message":"no"}}'])
async def test_an_upstream_that_lists_no_models_is_named(serve: Serve, body: str) -> None:
    _, engine = await serve(playing(*([body] if body else []), kind="application/json"))
    with pytest.raises(LifecycleError, match=r"lists no models .*pass --model"):
        await engine.models()


# failures


@pytest.mark.parametrize(
    ("status", "told", "error_type"),
    [
        (400, 400, "validation"),
        (404, 404, "not_found"),
        (408, 408, "response_timeout"),
        (413, 413, "validation"),
        (418, 418, "internal"),
        (422, 422, "validation"),
        (429, 429, "overload"),
        (500, 500, "internal"),
        (504, 504, "response_timeout"),
        (301, 500, "internal"),
    ],
)
async def test_an_error_keeps_its_status_and_its_parts(serve: Serve, status: int, told: int, error_type: str) -> None:
    error = {"message": "no", "type": "T", "code": "c", "param": "p"}
    body = orjson.dumps({"error": error})
    _, engine = await serve(playing(body, status=f"{status} Oops", kind="application/json", retry_after="7"))
    _, raised = await failing(engine)
    assert isinstance(raised, EngineError)
    assert (raised.message, raised.error_type) == ("no", error_type)
    assert raised.detail == (told, "T", "c", "p", 7.0)


@pytest.mark.parametrize("status", [502, 503])
@pytest.mark.parametrize(
    ("retry_after", "secs"), [("9", 9), ("-1", 0), ("soon", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)]
)
async def test_502_and_503_are_unavailable(serve: Serve, status: int, retry_after: str, secs: float | None) -> None:
    _, engine = await serve(playing("loading", status=f"{status} No", kind="text/plain", retry_after=retry_after))
    _, raised = await failing(engine)
    assert isinstance(raised, Unavailable)
    assert (raised.message, raised.retry_after_secs) == ("loading", secs)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_told_in_a_fixed_sentence(
    serve: Serve, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    body = '{"error":{"message":"Incorrect API key secret of tenant 7","code":"invalid_api_key"}}'
    _, engine = await serve(playing(body, status=f"{status} No", kind="application/json"))
    _, raised = await failing(engine)
    assert isinstance(raised, EngineError)
    assert raised.message == KEY_REFUSED
    assert raised.detail[:4] == (status, None, None, None)
    assert "tenant 7" in caplog.text
    assert "key secret" not in caplog.text


async def test_a_message_is_told_without_the_upstreams_address(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(status="400 No", kind="text/plain")
        await exchange.send(f"no route {exchange.path} at {exchange.headers['host']}, key secret")
        await exchange.end()

    _, engine = await serve(script)
    assert await failure(engine) == ([], "no route /v1/chat/completions at [upstream], key [redacted]")


@pytest.mark.parametrize("finish", [True, False], ids=["end of body", "torn connection"])
async def test_an_upstream_that_hangs_up_before_its_first_event(serve: Serve, finish: bool) -> None:
    _, engine = await serve(playing(finish=finish))
    said, raised = await failing(engine)
    assert said == []
    assert isinstance(raised, Unavailable)


# aborts: each closes the upstream connection, wherever it happens to be
