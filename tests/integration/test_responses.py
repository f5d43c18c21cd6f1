"""The Responses API through the official SDK, with an engine that serves it itself, at any of two frontends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import BaseModel
from openai.types.responses import Response, ResponseStreamEvent

from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.conformance.calls import until
from tests.response_engine import ARGUMENTS
from tests.shared_cluster import borrowed, shared_cluster
from tests.waiting import wait_until

MODEL = "native"
TEXT = "The quick brown fox"
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"responses-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=5.0,
        sweep_secs=0.25,
        stop_grace_secs=0.3,
        headers_after_secs=5.0,
    )
    with shared_cluster(_started(settings, tmp_path_factory.mktemp("responses"))) as cluster:
        yield cluster


@asynccontextmanager
async def _started(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker(MODEL, "tests.response_engine:generate")
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


@asynccontextmanager
async def sdk_of(frontend: Process) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        yield openai.AsyncOpenAI(base_url=frontend.url + "/v1", api_key="none", http_client=http, max_retries=0)


@pytest.fixture
async def here(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk_of(cluster.frontends[0]) as sdk:
        yield sdk


@pytest.fixture
async def there(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    """The other frontend."""
    async with sdk_of(cluster.frontends[1]) as sdk:
        yield sdk


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The engine stops half-way until this file exists."""
    return tmp_path / "gate"


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


async def test_create(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    answer = await here.responses.create(model=MODEL, input=TEXT, instructions="Echo.", metadata={"a": "b"})
    assert answer.id.startswith("resp_")
    assert (answer.object, answer.status, answer.model, answer.error) == ("response", "completed", MODEL, None)
    assert answer.output_text == TEXT
    assert (answer.instructions, answer.metadata, answer.background) == ("Echo.", {"a": "b"}, False)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (4, 3, 7)
    record = await until(cluster, answer.id, "completed")
    assert (record["endpoint"], record["request_type"], record["finish_reason"]) == ("responses", "unary", "stop")
    assert record["usage"]["prompt_tokens"] == 4
    assert record["output_events"] == len(TEXT.split())
    assert answer.created_at == int(record["created_at"])


async def test_stream(here: openai.AsyncOpenAI) -> None:
    events = await all_of(await here.responses.create(model=MODEL, input=TEXT, stream=True))
    must_be_contiguous(events)
    assert [events[0].type, events[1].type, events[-1].type] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[0].response.id == events[-1].response.id
    assert events[-1].response.output_text == TEXT


async def test_the_wire_format(cluster: Cluster) -> None:
    reply = await cluster.http.post(
        cluster.frontends[0].url + "/v1/responses", json={"model": MODEL, "input": "hi", "stream": True}
    )
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, *_, last = reply.text.strip().split("\n\n")
    assert first.startswith('id: 1-1\nevent: response.created\ndata: {"type":"response.created",')
    assert first.endswith('"sequence_number":0}')
    assert last.split("\n")[1] == "event: response.completed"
    assert "[DONE]" not in reply.text


async def test_the_sdks_own_stream_helper(here: openai.AsyncOpenAI) -> None:
    async with here.responses.stream(model=MODEL, input=TEXT) as stream:
        texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(texts) == final.output_text == TEXT


async def test_an_incomplete_answer(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    told = {"ends": "max_output_tokens"}
    answer = await here.responses.create(model=MODEL, input=TEXT, metadata=told)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert (await until(cluster, answer.id, "completed"))["finish_reason"] == "length"
    events = await all_of(await here.responses.create(model=MODEL, input=TEXT, metadata=told, stream=True))
    assert events[-1].type == "response.incomplete"
    assert (await here.responses.retrieve(answer.id)).status == "incomplete"


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
    here: openai.AsyncOpenAI, there: openai.AsyncOpenAI, gate: Path
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
    assert before[0].type == "response.queued"
    must_be_contiguous(before)
    assert before[0].response.status == "queued"
    assert before[1].type == "response.created"
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


async def test_input_items(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI) -> None:
    given: Any = [{"role": "user", "content": text} for text in ("one", "two", "three")]
    answer = await here.responses.create(model=MODEL, input=given)
    listed = there.responses.input_items.list(answer.id, order="asc", limit=2)
    texts = [text_of(item) async for item in listed]
    assert texts == ["one", "two", "three"]
    first = await there.responses.input_items.list(answer.id, limit=1)
    assert first.has_more
    assert text_of(first.data[0]) == "three"
    with pytest.raises(openai.BadRequestError, match="no input item"):
        await there.responses.input_items.list(answer.id, after="msg_unknown")


@pytest.mark.parametrize("code", ["server_error", "odd_code"])
async def test_failures(here: openai.AsyncOpenAI, cluster: Cluster, code: str) -> None:
    """A unary call that fails is an HTTP error; a stream that has begun ends with `response.failed`."""
    told = {"fails": code}
    with pytest.raises(openai.InternalServerError) as raised:
        await here.responses.create(model=MODEL, input=TEXT, metadata=told)
    assert (raised.value.code, raised.value.type) == (code, "internal_server_error")
    events = await all_of(await here.responses.create(model=MODEL, input=TEXT, metadata=told, stream=True))
    must_be_contiguous(events)
    failed = events[-1]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert (failed.response.error.code, failed.response.error.message) == (code, "No")
    assert failed.response.output_text == "The quick"
    response = await here.responses.retrieve(failed.response.id)
    assert response.status == "failed"
    assert response.error == failed.response.error
    last = await all_of(
        await here.responses.retrieve(failed.response.id, stream=True, starting_after=failed.sequence_number - 1)
    )
    assert last == [failed]
    nothing = await here.responses.retrieve(failed.response.id, stream=True, starting_after=failed.sequence_number)
    assert await all_of(nothing) == []


async def test_a_stream_that_fails_before_any_content_is_an_http_error(here: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        await here.responses.create(model=MODEL, input=TEXT, metadata={"refuses": "rate_limit_exceeded"}, stream=True)
    assert raised.value.code == "rate_limit_exceeded"


async def test_a_response_that_is_not_stored(here: openai.AsyncOpenAI) -> None:
    answer = await here.responses.create(model=MODEL, input=TEXT, store=False)
    assert answer.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError):
        await here.responses.input_items.list(answer.id)
    with pytest.raises(openai.BadRequestError, match="store"):
        await here.responses.create(model=MODEL, input=TEXT, store=False, background=True)


async def test_a_stop_completes_the_response_with_what_there_is(
    here: openai.AsyncOpenAI, cluster: Cluster, gate: Path
) -> None:
    stream = await here.responses.create(model=MODEL, input=TEXT, stream=True, metadata={"gate": str(gate)})
    events: list[ResponseStreamEvent] = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta" and event.delta == " quick":
            break
    assert events[0].type == "response.created"
    rid = events[0].response.id
    await cluster.http.post(f"{cluster.frontends[1].url}/v1/requests/{rid}/cancel?mode=stop")
    events += await all_of(stream)
    must_be_contiguous(events)
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "The quick"
    assert events[-1].response == (await here.responses.retrieve(rid))


async def test_ids(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    own = f"job-{secrets.token_hex(4)}"
    answer = await here.responses.create(model=MODEL, input="hi", extra_headers={"X-Request-Id": own})
    assert answer.id == "resp_" + own
    assert answer._request_id == answer.id
    kept = f"resp_{secrets.token_hex(4)}"
    assert (await here.responses.create(model=MODEL, input="hi", extra_headers={"X-Request-Id": kept})).id == kept
    with pytest.raises(openai.BadRequestError, match="1 to 123 characters"):
        await here.responses.create(model=MODEL, input="hi", extra_headers={"X-Request-Id": "x" * 124})
    chat = f"{cluster.frontends[0].url}/v1/responses/unknown"
    assert (await cluster.http.get(chat)).json()["error"]["code"] == "response_not_found"


async def test_a_repeated_call_attaches(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI) -> None:
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = await here.responses.create(model=MODEL, input=TEXT, background=True, extra_headers=key)
    completed = await retrieved(here, first.id, "completed")
    again = await there.responses.create(model=MODEL, input=TEXT, background=True, extra_headers=key)
    assert again == completed


async def test_a_response_is_continued(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI) -> None:
    first = await here.responses.create(model=MODEL, input="one two")
    second = await there.responses.create(model=MODEL, input="three four", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    items = [item async for item in here.responses.input_items.list(second.id, order="asc")]
    texts = [text_of(item) for item in items]
    assert texts == ["one two", "one two", "three four"]
    with pytest.raises(openai.BadRequestError) as refused:
        await here.responses.create(model=MODEL, input="x", previous_response_id="resp_unknown")
    assert refused.value.code == "previous_response_not_found"


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

            async def adopted() -> bool:
                return bool((await cluster.record(queued.id, other))["frontend"] == (await _id_of(cluster, other)))

            await wait_until(adopted, timeout=20)
            gate.touch()
            events = await reading
            must_be_contiguous(events)
            assert events[-1].type == "response.completed"
            assert events[-1].response.output_text == TEXT
            assert events == await all_of(await there.responses.retrieve(queued.id, stream=True))


async def _id_of(cluster: Cluster, frontend: Process) -> str:
    replicas = (await cluster.get("/v1/replicas", frontend))["data"]
    return next(str(replica["id"]) for replica in replicas if replica["pid"] == frontend.pid)
