"""Anthropic's SDK as the client of two frontends: an echo engine, through the translation."""

from __future__ import annotations

import asyncio

import anthropic
import pytest

from tests.cluster import Cluster
from tests.integration.messages.client import ENDLESS, EVENTS, PROMPT, call, same, says, sdk_for, streaming
from tests.sse import Stream
from tests.waiting import wait_until


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
    worker = await cluster.worker("mortal")
    async with sdk_for(cluster.frontends[0].url) as sdk:
        with pytest.raises(anthropic.APIStatusError, match="Stream ended before generation completed"):
            async with sdk.messages.stream(**call(model="mortal"), extra_body=ENDLESS) as stream:
                seen = 0
                async for _ in stream:
                    seen += 1
                    if seen == 5:
                        await worker.kill()


async def test_an_engine_that_can_resume_continues_the_open_block(cluster: Cluster) -> None:
    workers = [await cluster.worker("lasting", "tests.engines:resumed") for _ in range(2)]
    async with streaming(cluster, call("60 0.02", "lasting")) as stream:
        await stream.read_tokens(10)
        record = await cluster.record(stream.response.headers["x-request-id"])
        replicas = {replica["id"]: replica["pid"] for replica in (await cluster.get("/v1/replicas"))["data"]}
        workers.sort(key=lambda worker: worker.pid == replicas[record["worker"]])
        await workers.pop().kill()
        events = await stream.read()
    await workers.pop().terminate()
    text = "".join(event.data["delta"]["text"] for event in events if event.event == "content_block_delta")
    assert text == "".join(f"{number} " for number in range(60))
    kinds = [event.event for event in events if event.event != "content_block_delta"]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    attempts = [event.id.split("-")[0] for event in events if event.id]
    assert (attempts[0], attempts[-1]) == ("1", "2")
    assert events[-2].data["usage"]["output_tokens"] == 60


async def test_a_disconnect_ends_the_engine(cluster: Cluster) -> None:
    async with streaming(cluster, call(**ENDLESS)) as stream:
        await stream.read_tokens(5)
        rid = stream.response.headers["x-request-id"]

    async def ended() -> bool:
        return bool((await cluster.record(rid))["status"] == "cancelled")

    await wait_until(ended, what="the end of the request")
    assert await cluster.metric("lifecycle_client_disconnects_total", endpoint="messages") >= 1


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
