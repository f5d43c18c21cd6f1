"""Upstreams for the openai engine: one that serves chat only, and one that serves the Messages API itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tests.cluster import Cluster
from tests.upstream import DONE, Exchange, Script, Serve, Upstream

USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 20}}


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
    try:
        yield upstream
    finally:
        await worker.terminate()


def posted(upstream: Upstream, path: str) -> list[Exchange]:
    return [exchange for exchange in upstream.exchanges if exchange.path == path and exchange.body]


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
