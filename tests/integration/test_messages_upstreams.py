"""Anthropic's SDK in front of upstreams: one that serves chat only, and one that serves the Messages API itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import orjson
import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.integration.test_messages import EVENTS, call, same, sdk_for, streaming
from tests.upstream import DONE, Exchange, Script, Serve, Upstream
from tests.waiting import wait_until

TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 20}}


@pytest.fixture
async def cluster(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Cluster]:
    settings = make_settings(headers_after_secs=5.0)
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        yield cluster


def having(**answers: Script) -> Script:
    """Answer at these paths below `/v1`, and 404 elsewhere. An empty object, by which the engine asks, gets 400."""

    async def script(exchange: Exchange) -> None:
        answer = answers.get(exchange.path.removeprefix("/v1/").replace("/", "_"))
        if exchange.path == "/v1/models":
            await exchange.answer({"object": "list", "data": [{"id": "m"}]})
        elif answer is None:
            await exchange.answer({"error": {"message": "not here"}}, "404 Not Found")
        elif exchange.body == {}:
            await exchange.answer({"error": {"message": "a field is missing"}}, "400 Bad Request")
        else:
            await answer(exchange)

    return script


def chunks(*choices: dict[str, Any], usage: Any = USAGE) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for choice in choices:
            await exchange.send(f"data: {orjson.dumps({'choices': [{'index': 0, **choice}]}).decode()}\n\n")
        await exchange.send(f"data: {orjson.dumps({'choices': [], 'usage': usage}).decode()}\n\n" + DONE)
        await exchange.end()

    return script


def sse(*events: dict[str, Any], finish: bool = True) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for event in events:
            await exchange.send(f"event: {event['type']}\ndata: {orjson.dumps(event).decode()}\n\n")
        if finish:
            await exchange.end()

    return script


@asynccontextmanager
async def served(cluster: Cluster, serve: Serve, script: Script) -> AsyncIterator[Upstream]:
    """A worker in front of an upstream that plays the script."""
    upstream, _ = await serve(script)
    worker = await cluster.worker("m", "openai", openai_base_url=upstream.url, openai_api_key="secret")
    yield upstream
    await worker.terminate()


def posted(upstream: Upstream, path: str) -> list[Exchange]:
    return [exchange for exchange in upstream.exchanges if exchange.path == path and exchange.body]


# An upstream that serves chat completions

TOOL_CALLS = chunks(
    {"delta": {"role": "assistant", "reasoning_content": "They ask"}},
    {"delta": {"reasoning_content": " for Oslo."}},
    {"delta": {"content": "Let me look."}},
    {"delta": {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}},
    {"delta": {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "weather", "arguments": "{}"}}]}},
    {"delta": {}, "finish_reason": "tool_calls"},
)


async def test_reasoning_and_tools_through_chat(cluster: Cluster, serve: Serve) -> None:
    asked: dict[str, Any] = call("Weather in Oslo?", "m", tools=[TOOL], tool_choice={"type": "any"})
    async with (
        served(cluster, serve, having(chat_completions=TOOL_CALLS)) as upstream,
        sdk_for(cluster.frontends[0].url) as sdk,
    ):
        whole = await sdk.messages.create(**asked)
        async with sdk.messages.stream(**asked) as stream:
            folded = await stream.get_final_message()
        record = await cluster.record(folded.id)
    assert [block.to_dict() for block in whole.content] == [
        {"type": "thinking", "thinking": "They ask for Oslo.", "signature": ""},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "c2", "name": "weather", "input": {}},
    ]
    assert whole.stop_reason == "tool_use"
    assert same(folded, whole)
    usage = whole.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (10, 20, 12)
    assert record["usage"] == USAGE  # as the engine reported it
    assert (record["finish_reason"], record["endpoint"]) == ("tool_calls", "messages")
    sent = posted(upstream, "/v1/chat/completions")[0]
    assert sent.body["tool_choice"] == "required"
    assert sent.body["tools"][0]["function"]["parameters"] == TOOL["input_schema"]


async def test_a_conversation_with_tools_and_images_through_chat(cluster: Cluster, serve: Serve) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    async with (
        served(cluster, serve, having(chat_completions=TOOL_CALLS)) as upstream,
        sdk_for(cluster.frontends[0].url) as sdk,
    ):
        first = await sdk.messages.create(**call("Weather?", "m", tools=[TOOL]))
        results: list[Any] = [
            {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "rain"}, image]}
            for block in first.content
            if block.type == "tool_use"
        ]
        turns: list[Any] = [
            {"role": "user", "content": "Weather?"},
            first.to_param(),
            {"role": "user", "content": [*results, {"type": "text", "text": "And now?"}]},
        ]
        await sdk.messages.create(**call("", "m", tools=[TOOL]) | {"messages": turns})
    messages = posted(upstream, "/v1/chat/completions")[-1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert messages[1]["reasoning_content"] == "They ask for Oslo."
    assert messages[1]["tool_calls"][0] == {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
    }
    assert messages[2]["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert messages[4]["content"] == "And now?"


async def test_stop_sequences_through_chat(cluster: Cluster, serve: Serve) -> None:
    script = chunks({"delta": {"content": "a"}}, {"delta": {}, "finish_reason": "stop", "stop_reason": "END"})
    async with (
        served(cluster, serve, having(chat_completions=script)) as upstream,
        sdk_for(cluster.frontends[0].url) as sdk,
    ):
        answer = await sdk.messages.create(**call("x", "m", stop_sequences=["END"]))
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")
    assert posted(upstream, "/v1/chat/completions")[0].body["stop"] == ["END"]


async def test_what_cannot_be_translated_is_refused(cluster: Cluster, serve: Serve) -> None:
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    async with (
        served(cluster, serve, having(chat_completions=TOOL_CALLS)),
        sdk_for(cluster.frontends[0].url) as sdk,
    ):
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\].source.type"):
            await sdk.messages.create(**call("", "m") | {"messages": [{"role": "user", "content": [pdf]}]})
        with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\].type"):
            await sdk.messages.create(**call("x", "m", tools=[{"type": "web_search_20250305", "name": "web_search"}]))
        with pytest.raises(anthropic.BadRequestError, match="does not serve the endpoint count_tokens"):
            await sdk.messages.count_tokens(model="m", messages=[{"role": "user", "content": "x"}])
    assert await cluster.inflight() == 0


# An upstream that serves the Messages API

START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_upstream",
        "type": "message",
        "role": "assistant",
        "model": "other-name",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1},
    },
}
EVENTS_SENT: tuple[dict[str, Any], ...] = (
    START,
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "xx"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    },
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"city": "Os'}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": 'lo"}'}},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 40},
    },
    {"type": "message_stop"},
)
NATIVE = sse(*EVENTS_SENT)


async def count(exchange: Exchange) -> None:
    await exchange.answer({"input_tokens": 2095})


async def test_a_native_upstream_gets_the_call_as_it_is(cluster: Cluster, serve: Serve) -> None:
    server_tool = {"type": "web_search_20250305", "name": "web_search"}
    asked = call("x", "m", tools=[TOOL, server_tool], thinking={"type": "enabled", "budget_tokens": 1024})
    headers = {"anthropic-beta": "interleaved-thinking-2025-05-14"}
    async with (
        served(cluster, serve, having(messages=NATIVE, chat_completions=TOOL_CALLS)) as upstream,
        sdk_for(cluster.frontends[0].url) as sdk,
    ):
        whole = await sdk.messages.create(**asked, extra_headers=headers)
        async with sdk.messages.stream(**asked) as stream:
            folded = await stream.get_final_message()
        record = await cluster.record(whole.id)
    assert [block.to_dict() for block in whole.content] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
    ]
    assert (whole.model, whole.stop_reason, whole.id[:4]) == ("m", "tool_use", "msg_")
    assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.cache_read_input_tokens) == (25, 40, 5)
    assert same(folded, whole)
    assert record["usage"]["prompt_tokens"] == 30
    assert (record["output_tokens"], record["finish_reason"]) == (40, "tool_calls")

    first = posted(upstream, "/v1/messages")[0]
    assert first.body == asked | {"stream": True}
    assert first.headers["anthropic-beta"] == headers["anthropic-beta"]
    assert first.headers["anthropic-version"]
    assert first.headers["authorization"] == "Bearer secret"
    assert "x-api-key" not in first.headers


async def test_a_native_upstreams_events_are_what_the_client_reads(cluster: Cluster, serve: Serve) -> None:
    async with served(cluster, serve, having(messages=NATIVE)):
        async with streaming(cluster, call("x", "m")) as stream:
            events = await stream.read()
        rid = stream.response.headers["x-request-id"]
        url = f"{cluster.frontends[1].url}/v1/requests/{rid}/stream?after=1-12"
        async with cluster.http.stream("GET", url) as response:
            rest = [line async for line in response.aiter_lines() if line.startswith("id:")]
    message = START["message"] | {"id": rid, "model": "m"}
    assert [event.data for event in events] == [START | {"message": message}, *EVENTS_SENT[1:]]
    assert rest == [f"id: 1-{number}" for number in range(13, len(EVENTS_SENT) + 1)]


async def test_tokens_are_counted_where_the_upstream_can(cluster: Cluster, serve: Serve) -> None:
    """Claude Code counts before it sends a conversation: with system blocks, cache marks and many tools."""
    system: list[Any] = [
        {"type": "text", "text": f"Part {number}.", "cache_control": {"type": "ephemeral"}} for number in range(3)
    ]
    tools: list[Any] = [TOOL | {"name": f"tool_{number}"} for number in range(40)]
    async with (
        served(cluster, serve, having(messages=NATIVE, messages_count_tokens=count)) as upstream,
        sdk_for(cluster.frontends[0].url) as sdk,
    ):
        counted = await sdk.messages.count_tokens(
            model="m", messages=[{"role": "user", "content": "x"}], system=system, tools=tools
        )
        listed = (await cluster.get("/v1/requests?endpoint=messages"))["data"]
        url = f"{cluster.frontends[1].url}/v1/requests/{listed[0]['id']}/stream"
        replayed = await cluster.http.get(url)
    assert counted.input_tokens == 2095
    [record] = listed
    assert (record["request_type"], record["status"], record["output_events"]) == ("unary", "completed", 1)
    assert replayed.text == 'id: 1-1\ndata: {"input_tokens":2095}\n\n'
    [sent] = posted(upstream, "/v1/messages/count_tokens")
    assert sent.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "system": system,
        "tools": tools,
    }


async def test_claude_code_through_chat(cluster: Cluster, serve: Serve) -> None:
    """Its traffic needs nothing that chat cannot do: cache marks and edits of the context are advice."""
    system: list[Any] = [{"type": "text", "text": "You are a CLI.", "cache_control": {"type": "ephemeral"}}] * 2
    body = call(
        "hi",
        "m",
        system=system,
        tools=[TOOL | {"name": f"tool_{number}", "cache_control": {"type": "ephemeral"}} for number in range(40)],
        metadata={"user_id": "user_1"},
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    )
    async with (
        served(cluster, serve, having(chat_completions=TOOL_CALLS)) as upstream,
        streaming(cluster, body, anthropic_beta="a,b", anthropic_version="2023-06-01") as stream,
    ):
        events = await stream.read()
    for event in events:
        EVENTS.validate_python(event.data)
    [sent] = posted(upstream, "/v1/chat/completions")
    assert sent.body["messages"][0] == {"role": "system", "content": "You are a CLI.\n\nYou are a CLI."}
    assert (len(sent.body["tools"]), sent.body["user"], sent.body["reasoning_effort"]) == (40, "user_1", "high")
    assert sent.body.keys().isdisjoint({"thinking", "context_management", "metadata", "output_config", "system"})


# Upstreams that fail


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        ("400 Bad Request", "invalid_request_error", anthropic.BadRequestError),
        ("413 Too Large", "request_too_large", anthropic.ContentTooLargeError),
        ("429 Too Many Requests", "rate_limit_error", anthropic.RateLimitError),
        ("500 Internal Server Error", "api_error", anthropic.InternalServerError),
        ("529 Overloaded", "overloaded_error", anthropic.InternalServerError),
        ("504 Gateway Timeout", "timeout_error", anthropic.InternalServerError),
    ],
)
async def test_an_upstreams_error_raises_the_sdks_exception(
    cluster: Cluster, serve: Serve, status: str, kind: str, raised: type[anthropic.APIStatusError]
) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer({"type": "error", "error": {"type": kind, "message": "the reason"}}, status)

    async with (
        served(cluster, serve, having(messages=refuse)),
        sdk_for(cluster.frontends[0].url, max_retries=0) as sdk,
    ):
        with pytest.raises(raised, match="the reason") as unary:
            await sdk.messages.create(**call("x", "m"))
        with pytest.raises(raised, match="the reason"):
            async with sdk.messages.stream(**call("x", "m")) as stream:
                await stream.get_final_message()
    body: Any = unary.value.body
    assert body["type"] == "error"
    assert body["error"] == {"type": kind, "message": "the reason"}
    assert body["request_id"] == unary.value.request_id


async def test_an_error_event_of_the_upstream(cluster: Cluster, serve: Serve) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    async with (
        served(cluster, serve, having(messages=sse(*EVENTS_SENT[:5], error))),
        streaming(cluster, call("x", "m")) as stream,
    ):
        events = await stream.read()
    rid = stream.response.headers["x-request-id"]
    assert events[-1].event == "error"
    assert events[-1].data == error | {"request_id": rid}
    assert (await cluster.record(rid))["status"] == "failed"


async def test_a_disconnect_closes_the_native_upstream(cluster: Cluster, serve: Serve) -> None:
    async with served(cluster, serve, having(messages=sse(*EVENTS_SENT[:10], finish=False))) as upstream:
        async with streaming(cluster, call("x", "m")) as stream:
            await stream.read_tokens(10)
        await wait_until(
            lambda: asyncio.sleep(0, any(e.path == "/v1/messages" and e.body for e in upstream.left)),
            what="the end of the upstream's connection",
        )
        rid = stream.response.headers["x-request-id"]

        async def cancelled() -> bool:
            return bool((await cluster.record(rid))["status"] == "cancelled")

        await wait_until(cancelled, what="the end of the request")


async def test_an_upstream_that_breaks_off_behind_its_opening_is_tried_elsewhere(
    cluster: Cluster, serve: Serve
) -> None:
    async def breaks(exchange: Exchange) -> None:
        await sse(START, {"type": "ping"}, finish=False)(exchange)
        exchange.writer.close()

    async with served(cluster, serve, having(messages=breaks)):
        async with streaming(cluster, call("x", "m")) as stream:
            body = orjson.loads(await stream.response.aread())
        assert stream.response.status_code == 503
        assert body["error"]["type"] == "overloaded_error"
        async with (
            served(cluster, serve, having(messages=NATIVE)),
            streaming(cluster, call("x", "m")) as stream,
        ):
            events = await stream.read()
    assert [event.data["type"] for event in events].count("message_start") == 1
    assert events[-1].event == "message_stop"
