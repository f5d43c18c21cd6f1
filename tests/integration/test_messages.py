"""Anthropic's SDK as the client of two frontends: an echo engine, through the translation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.sse import Stream
from tests.waiting import wait_until

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
PROMPT = "The quick brown fox jumps"
ENDLESS: dict[str, Any] = {"echo_repeat": 1_000_000_000}


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


@pytest.fixture
async def cluster(make_settings: MakeSettings, tmp_path: Path) -> AsyncIterator[Cluster]:
    settings = make_settings(echo_tokens_per_sec=200.0, headers_after_secs=5.0)
    async with running(settings, tmp_path, frontends=2) as cluster:
        yield cluster


@pytest.fixture
async def sdk(cluster: Cluster) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk_for(cluster.frontends[0].url) as sdk:
        yield sdk


async def test_create(sdk: anthropic.AsyncAnthropic, cluster: Cluster) -> None:
    answer = await sdk.messages.create(model="echo", max_tokens=100, messages=says(), system="Repeat.")
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", "echo", "end_turn")
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": PROMPT}]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 5)
    assert answer.id.startswith("msg_")
    assert answer._request_id == answer.id
    record = await cluster.record(answer.id)
    assert (record["endpoint"], record["request_type"], record["finish_reason"]) == ("messages", "unary", "stop")
    assert record["output_events"] == 5
    limited = await sdk.messages.create(model="echo", max_tokens=2, messages=says())
    assert (limited.content[0].to_dict()["text"], limited.stop_reason) == ("The quick", "max_tokens")


async def test_stream_gives_what_create_gives(sdk: anthropic.AsyncAnthropic, cluster: Cluster) -> None:
    whole = await sdk.messages.create(model="echo", max_tokens=100, messages=says(), stop_sequences=["fox"])
    async with sdk.messages.stream(model="echo", max_tokens=100, messages=says(), stop_sequences=["fox"]) as stream:
        text = [piece async for piece in stream.text_stream]
        folded = await stream.get_final_message()
    assert text == ["The", " quick", " brown "]
    assert same(folded, whole)
    record = await cluster.record(folded.id)
    assert (record["request_type"], record["status"]) == ("stream", "completed")


async def test_the_events_as_they_are_written(cluster: Cluster) -> None:
    async with streaming(cluster, call("a b")) as stream:
        events = await stream.read()
    assert [event.event for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event.id for event in events] == [f"1-{number}" for number in range(1, 8)]
    for event in events:
        assert event.event == event.data["type"]
        EVENTS.validate_python(event.data)
    rid = stream.response.headers["x-request-id"]
    assert events[0].data["message"]["id"] == rid == stream.response.headers["request-id"]

    for position, frontend in enumerate(cluster.frontends * 4):
        headers = {"Last-Event-ID": f"1-{position}"} if position else {}
        url = f"{frontend.url}/v1/requests/{rid}/stream"
        async with cluster.http.stream("GET", url, headers=headers) as response:
            if position == 7:
                assert response.status_code == 204
                break
            assert await Stream(response).read() == events[position:]


async def test_a_stop_completes_the_message(cluster: Cluster) -> None:
    async with streaming(cluster, call(**ENDLESS)) as stream:
        await stream.read_tokens(5)
        rid = stream.response.headers["x-request-id"]
        await cluster.http.post(f"{cluster.frontends[1].url}/v1/requests/{rid}/cancel", json={"mode": "stop"})
        events = await stream.read()
    assert [event.event for event in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[-2].data["delta"]["stop_reason"] == "end_turn"
    record = await cluster.record(rid)
    assert (record["status"], record["cancel_mode"]) == ("completed", "stop")


async def test_a_cancel_from_the_other_frontend_is_an_error_event(cluster: Cluster) -> None:
    async with streaming(cluster, call(**ENDLESS)) as stream:
        await stream.read_tokens(5)
        rid = stream.response.headers["x-request-id"]
        url = f"{cluster.frontends[1].url}/v1/requests/{rid}/cancel"
        await cluster.http.post(url, json={"reason": "enough", "wait_ms": 5000})
        events = await stream.read()
    assert (events[-1].event, events[-1].id) == ("error", None)
    assert events[-1].data == {
        "type": "error",
        "error": {"type": "api_error", "message": events[-1].data["error"]["message"]},
        "request_id": rid,
    }
    assert "enough" in events[-1].data["error"]["message"]
    assert all(event.data != "[DONE]" for event in events)


async def test_a_killed_worker_is_an_error_event(cluster: Cluster) -> None:
    async with sdk_for(cluster.frontends[0].url) as sdk:
        with pytest.raises(anthropic.APIStatusError, match="Stream ended before generation completed"):
            async with sdk.messages.stream(**call(), extra_body=ENDLESS) as stream:
                seen = 0
                async for _ in stream:
                    seen += 1
                    if seen == 5:
                        await cluster.workers[0].kill()


async def test_a_disconnect_ends_the_engine(cluster: Cluster) -> None:
    async with streaming(cluster, call(**ENDLESS)) as stream:
        await stream.read_tokens(5)
        rid = stream.response.headers["x-request-id"]

    async def ended() -> bool:
        return bool((await cluster.record(rid))["status"] == "cancelled")

    await wait_until(ended, what="the end of the request")
    assert await cluster.metric("lifecycle_client_disconnects_total", endpoint="messages") == 1


async def test_a_unary_call_that_is_cancelled(cluster: Cluster) -> None:
    async with sdk_for(cluster.frontends[0].url, max_retries=0) as sdk:
        asking = asyncio.create_task(
            sdk.messages.create(**call(), extra_body=ENDLESS, extra_headers={"X-Request-Id": "mine"})
        )

        async def runs() -> bool:
            found = await cluster.http.get(f"{cluster.frontends[1].url}/v1/requests/mine")
            return found.status_code == 200 and found.json()["status"] == "running"

        await wait_until(runs, what="a running request")
        await cluster.http.post(f"{cluster.frontends[1].url}/v1/requests/mine/cancel")
        with pytest.raises(anthropic.APIStatusError) as raised:
            await asking
    assert (raised.value.status_code, raised.value.request_id) == (499, "mine")
