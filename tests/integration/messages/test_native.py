"""Anthropic's SDK in front of an upstream that serves the Messages API itself."""

from __future__ import annotations

from typing import Any

from tests.cluster import Cluster
from tests.integration.messages.client import TOOL, call, same, sdk_for, streaming
from tests.integration.messages.upstreams import EVENTS_SENT, NATIVE, START, TOOL_CALLS, having, posted, served
from tests.upstream import Exchange, Serve


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


async def test_the_beta_calls_of_the_sdk(cluster: Cluster, serve: Serve) -> None:
    """They have `?beta=true` in their URL, and the names of the features in a header."""
    async with (
        served(cluster, serve, having(messages=NATIVE)) as upstream,
        sdk_for(cluster.frontends[1].url) as sdk,
    ):
        answer = await sdk.beta.messages.create(**call("x", "m"), betas=["context-management-2025-06-27"])
    assert answer.stop_reason == "tool_use"
    [sent] = posted(upstream, "/v1/messages")
    assert sent.headers["anthropic-beta"] == "context-management-2025-06-27"


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
    record = listed[0]
    assert (record["request_type"], record["status"], record["output_events"]) == ("unary", "completed", 1)
    assert replayed.text == 'id: 1-1\ndata: {"input_tokens":2095}\n\n'
    [sent] = posted(upstream, "/v1/messages/count_tokens")
    assert sent.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "system": system,
        "tools": tools,
    }
