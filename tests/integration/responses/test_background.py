"""Responses in the background: they are retrieved, resumed, cancelled and deleted at any frontend."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import httpx2
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.conformance.calls import until
from tests.integration.responses.client import MODEL, TEXT, WEATHER, all_of, must_be_contiguous, retrieved, sdk_of
from tests.response_engine import ARGUMENTS
from tests.waiting import wait_until


async def test_a_background_response_is_answered_at_once(
    here: openai.AsyncOpenAI, there: openai.AsyncOpenAI, gate: Path
) -> None:
    queued = await here.responses.create(model=MODEL, input=TEXT, background=True, metadata={"gate": str(gate)})
    assert (queued.status, queued.background, queued.output) == ("queued", True, [])

    async def half() -> Response | None:
        response = await there.responses.retrieve(queued.id)
        return response if response.output_text == "The quick" else None

    running = await wait_until(half)
    assert running.status == "in_progress"
    assert running.created_at == queued.created_at
    gate.touch()
    completed = await retrieved(there, queued.id, "completed")
    assert completed.output_text == TEXT
    assert completed.created_at == queued.created_at
    assert completed.background is True


async def test_a_background_stream_can_be_left_and_resumed_at_the_other_frontend(
    here: openai.AsyncOpenAI, there: openai.AsyncOpenAI, cluster: Cluster, gate: Path
) -> None:
    """The stream is left in the middle of a tool call."""
    stream = await here.responses.create(
        model=MODEL, input=TEXT, tools=[WEATHER], background=True, stream=True, metadata={"gate": str(gate)}
    )
    before: list[ResponseStreamEvent] = []
    async for event in stream:
        before.append(event)
        if event.type == "response.function_call_arguments.delta":
            break
    await stream.close()
    assert before[0].type == "response.created"
    must_be_contiguous(before)
    assert before[0].response.status == "queued"
    assert before[1].type == "response.queued"
    assert before[0].response.id == before[1].response.id
    assert before[0].response.created_at == before[1].response.created_at

    last = before[-1].sequence_number
    resumed = await there.responses.retrieve(before[0].response.id, stream=True, starting_after=last)
    gate.touch()
    behind = await all_of(resumed)
    must_be_contiguous(behind, last + 1)
    deltas = [event.delta for event in before + behind if event.type == "response.function_call_arguments.delta"]
    assert deltas == list(ARGUMENTS)
    assert behind[-1].type == "response.completed"
    (call,) = behind[-1].response.output
    assert call.type == "function_call"
    assert call.arguments == "".join(ARGUMENTS)

    own = await cluster.http.get(f"{cluster.frontends[0].url}/v1/requests/{before[0].response.id}/stream")
    listed = await cluster.http.get(f"{cluster.frontends[1].url}/v1/responses/{before[0].response.id}?stream=true")
    assert own.text == listed.text
    again = await all_of(await there.responses.retrieve(before[0].response.id, stream=True))
    assert again == before + behind
    ended = await there.responses.retrieve(
        before[0].response.id, stream=True, starting_after=behind[-1].sequence_number
    )
    assert await all_of(ended) == []


async def test_cancel_at_the_other_frontend(
    here: openai.AsyncOpenAI, there: openai.AsyncOpenAI, cluster: Cluster, gate: Path
) -> None:
    queued = await here.responses.create(model=MODEL, input=TEXT, background=True, metadata={"gate": str(gate)})
    reader = await here.responses.retrieve(queued.id, stream=True)
    events: list[ResponseStreamEvent] = []
    async for event in reader:
        events.append(event)
        if event.type == "response.output_text.delta":
            break
    cancelled = await there.responses.cancel(queued.id)
    assert cancelled.status == "cancelled"
    assert cancelled.output_text.startswith("The")
    assert (await cluster.record(queued.id))["status"] == "cancelled"
    events += await all_of(reader)
    must_be_contiguous(events)
    assert events[-1].type == "response.output_text.delta", "a cancelled stream ends without another event"
    assert (await here.responses.retrieve(queued.id)).status == "cancelled"
    assert (await here.responses.cancel(queued.id)).status == "cancelled", "a repetition changes nothing"


async def test_only_a_background_response_can_be_cancelled(here: openai.AsyncOpenAI) -> None:
    answer = await here.responses.create(model=MODEL, input=TEXT)
    with pytest.raises(openai.BadRequestError, match="background") as refused:
        await here.responses.cancel(answer.id)
    assert refused.value.code == "response_not_in_background"


async def test_delete(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI, cluster: Cluster, gate: Path) -> None:
    ended = await here.responses.create(model=MODEL, input=TEXT)
    running = await here.responses.create(model=MODEL, input=TEXT, background=True, metadata={"gate": str(gate)})
    for rid in (ended.id, running.id):
        reply = await cluster.http.delete(f"{cluster.frontends[1].url}/v1/responses/{rid}")
        assert reply.json() == {"id": rid, "object": "response", "deleted": True}
        with pytest.raises(openai.NotFoundError):
            await here.responses.retrieve(rid)
        with pytest.raises(openai.NotFoundError):
            await there.responses.input_items.list(rid)
        with pytest.raises(openai.NotFoundError):
            await there.responses.delete(rid)
    assert (await until(cluster, running.id, "cancelled"))["cancel_reason"] == "The response was deleted"
    assert (await cluster.record(ended.id))["status"] == "completed", "the record stays"


async def test_a_repeated_call_attaches(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI) -> None:
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = await here.responses.create(model=MODEL, input=TEXT, background=True, extra_headers=key)
    completed = await retrieved(here, first.id, "completed")
    again = await there.responses.create(model=MODEL, input=TEXT, background=True, extra_headers=key)
    assert again == completed
    await there.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await here.responses.create(model=MODEL, input=TEXT, background=True, extra_headers=key)


def test_the_synchronous_sdk(shared: Cluster) -> None:
    http = httpx2.Client(trust_env=False, timeout=30)
    with openai.OpenAI(base_url=shared.frontends[1].url + "/v1", api_key="none", http_client=http) as sdk:
        stream = sdk.responses.create(model=MODEL, input=TEXT, background=True, stream=True)
        events = list(stream)
        must_be_contiguous(events)
        assert events[-1].type == "response.completed"
        assert sdk.responses.retrieve(events[-1].response.id) == events[-1].response


async def test_a_background_response_survives_the_frontend_that_took_it(
    redis_url: str, tmp_path: Path, gate: Path
) -> None:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"responses-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=1.5,
        sweep_secs=0.25,
    )
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker(MODEL, "tests.response_engine:generate")
        taker, other = cluster.frontends
        async with sdk_of(taker) as here, sdk_of(other) as there:
            queued = await here.responses.create(model=MODEL, input=TEXT, background=True, metadata={"gate": str(gate)})
            reading = asyncio.create_task(all_of(await there.responses.retrieve(queued.id, stream=True)))

            async def half() -> bool:
                return (await there.responses.retrieve(queued.id)).output_text == "The quick"

            await wait_until(half)
            await taker.kill()

            async def reassigned() -> bool:
                return bool((await cluster.record(queued.id, other))["frontend"] == (await _id_of(cluster, other)))

            await wait_until(reassigned, timeout=20)
            gate.touch()
            events = await reading
            must_be_contiguous(events)
            assert events[-1].type == "response.completed"
            assert events[-1].response.output_text == TEXT
            assert events == await all_of(await there.responses.retrieve(queued.id, stream=True))


async def _id_of(cluster: Cluster, frontend: Process) -> str:
    replicas = (await cluster.get("/v1/replicas", frontend))["data"]
    return next(str(replica["id"]) for replica in replicas if replica["pid"] == frontend.pid)


async def test_the_sdks_own_stream_helper(here: openai.AsyncOpenAI) -> None:
    async with here.responses.stream(model=MODEL, input=TEXT, background=True) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert final.output_text == TEXT
    async with here.responses.stream(response_id=final.id) as again:
        assert (await again.get_final_response()).output_text == TEXT
