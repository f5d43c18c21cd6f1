"""Anthropic's SDK in front of an upstream that serves only chat completions."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.cluster import Cluster
from tests.integration.messages.client import EVENTS, TOOL, call, same, sdk_for, streaming
from tests.integration.messages.upstreams import TOOL_CALLS, USAGE, chunks, having, posted, served
from tests.upstream import Serve


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
