"""Call the Messages API through the official SDK, or as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message, MessageParam, RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.cluster import Cluster
from tests.sse import Stream

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
PROMPT = "The quick brown fox jumps"
ENDLESS: dict[str, Any] = {"echo_repeat": 1_000_000_000}
TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def says(text: str = PROMPT) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def call(text: str = PROMPT, model: str = "echo", **fields: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 1000, "messages": says(text), **fields}


def same(folded: Message, whole: Message) -> bool:
    """Return whether the message that the SDK puts together from a stream is that of a unary call, but for its id."""
    return folded.to_dict(exclude_none=True) == whole.to_dict(exclude_none=True) | {"id": folded.id}


@asynccontextmanager
async def sdk_for(url: str, **options: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        yield anthropic.AsyncAnthropic(base_url=url, http_client=http, **{"api_key": "none", **options})


@asynccontextmanager
async def streaming(cluster: Cluster, body: dict[str, Any], **headers: str) -> AsyncIterator[Stream]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    url = cluster.frontends[0].url + "/v1/messages"
    async with cluster.http.stream("POST", url, json=body | {"stream": True}, headers=sent) as response:
        yield Stream(response)
