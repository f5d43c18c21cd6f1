"""Call the Responses API through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
from openai import BaseModel
from openai.types.responses import Response, ResponseStreamEvent

from tests.cluster import Process
from tests.waiting import wait_until

MODEL = "native"
TEXT = "The quick brown fox"
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


@asynccontextmanager
async def sdk_of(frontend: Process) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        yield openai.AsyncOpenAI(base_url=frontend.url + "/v1", api_key="none", http_client=http, max_retries=0)


async def all_of(stream: AsyncIterator[ResponseStreamEvent]) -> list[ResponseStreamEvent]:
    return [event async for event in stream]


def text_of(item: BaseModel) -> object:
    content: Any = item.to_dict()["content"]
    return content[0]["text"]


def must_be_contiguous(events: list[ResponseStreamEvent], first: int = 0) -> None:
    assert [event.sequence_number for event in events] == list(range(first, first + len(events)))


async def retrieved(sdk: openai.AsyncOpenAI, rid: str, *statuses: str) -> Response:
    """Return the response once it has one of these statuses."""

    async def found() -> Response | None:
        response = await sdk.responses.retrieve(rid)
        return response if response.status in statuses else None

    return await wait_until(found)
