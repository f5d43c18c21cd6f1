"""The Responses API through the official SDK, before engines that serve only chat completions."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseStreamEvent

from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.conformance.calls import until
from tests.conftest import MakeSettings
from tests.shared_cluster import borrowed, shared_cluster

CHAT, ECHO = "chat", "words"
TEXT = "The quick brown fox"
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"translated-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=5.0,
        sweep_secs=0.25,
        stop_grace_secs=0.3,
    )
    with shared_cluster(_started(settings, tmp_path_factory.mktemp("translated"))) as cluster:
        yield cluster


@asynccontextmanager
async def _started(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker(CHAT, "tests.chat_engine:generate")
        await cluster.worker(ECHO, "echo")
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


async def all_of(stream: AsyncIterator[ResponseStreamEvent]) -> list[ResponseStreamEvent]:
    return [event async for event in stream]


def numbers(events: list[ResponseStreamEvent]) -> list[int]:
    return [event.sequence_number for event in events]


def reasoning_of(response: Response) -> str:
    texts = [part.text for item in response.output if item.type == "reasoning" for part in item.content or ()]
    return "".join(texts)


async def test_a_plain_text_engine_answers_a_response(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    answer = await here.responses.create(model=ECHO, input=[{"role": "user", "content": TEXT}], instructions="Echo.")
    assert (answer.status, answer.output_text, answer.model) == ("completed", TEXT, ECHO)
    record = await until(cluster, answer.id, "completed")
    assert (record["endpoint"], record["output_events"], record["finish_reason"]) == ("responses", 4, "stop")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 4)
    async with here.responses.stream(model=ECHO, input=TEXT) as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert deltas == ["The", " quick", " brown", " fox"]
    assert final.output_text == TEXT


async def test_a_thought_is_an_item_of_its_own(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI) -> None:
    async with here.responses.stream(model=CHAT, input=TEXT) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    thoughts = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    assert thoughts == ["Let me ", "think."]
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert (reasoning_of(final), final.output_text) == ("Let me think.", TEXT)
    assert final.usage is not None
    assert final.usage.input_tokens_details.cached_tokens == 1
    assert final.usage.output_tokens_details.reasoning_tokens == 2
    again = await all_of(await there.responses.retrieve(final.id, stream=True, starting_after=4))
    assert numbers(again) == list(range(5, len(events)))
    assert again[-1].type == "response.completed"
    assert again[-1].response.output == (await there.responses.retrieve(final.id)).output


async def test_functions_are_called_and_their_results_go_back(
    here: openai.AsyncOpenAI, there: openai.AsyncOpenAI
) -> None:
    async with here.responses.stream(model=CHAT, input="Weather?", tools=[WEATHER]) as stream:
        deltas = [event async for event in stream if event.type == "response.function_call_arguments.delta"]
        first = await stream.get_final_response()
    calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert [(call.name, call.call_id, call.arguments) for call in calls] == [
        ("weather", "call_0", '{"city":"Paris"}'),
        ("weather", "call_1", '{"city":"Paris"}'),
    ]
    assert [event.output_index for event in deltas] == [0, 1, 0, 1]
    results: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"result of {call.call_id}"}
        for call in calls
    ]
    second = await there.responses.create(model=CHAT, previous_response_id=first.id, input=results, tools=[WEATHER])
    assert second.output_text == "result of call_1"


async def test_an_answer_that_is_cut_off_is_incomplete(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    answer = await here.responses.create(model=CHAT, input=TEXT, max_output_tokens=2)
    assert (answer.status, answer.output_text) == ("incomplete", "The quick")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert [item.to_dict()["status"] for item in answer.output] == ["completed", "incomplete"]
    assert (await until(cluster, answer.id, "completed"))["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, {"type": "web_search"}]}, "tools[1].type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
    ],
)
async def test_what_the_engine_cannot_do_is_refused(
    here: openai.AsyncOpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await here.responses.create(**{"model": CHAT, "input": TEXT, **fields})
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", param)


async def test_a_stop_completes_the_answer_with_what_there_is(
    here: openai.AsyncOpenAI, cluster: Cluster, tmp_path: Path
) -> None:
    extra = {"gate": str(tmp_path / "gate")}
    stream = await here.responses.create(model=CHAT, input=TEXT, stream=True, extra_body=extra)
    events = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta":
            url = f"{cluster.frontends[1].url}/v1/requests/{stream.response.headers['x-request-id']}/cancel"
            stopped = await cluster.http.post(url, json={"mode": "stop", "wait_ms": 10_000})
            assert stopped.json()["status"] == "completed"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "The"
    assert numbers(events) == list(range(len(events)))


async def test_another_worker_continues_the_items_of_one_that_died(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(queue_without_workers=True)
    gate = tmp_path / "gate"
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster, sdk_of(cluster.frontends[0]) as here:
        worker = await cluster.worker(CHAT, "tests.chat_engine:generate")
        stream = await here.responses.create(model=CHAT, input=TEXT, stream=True, extra_body={"gate": str(gate)})
        events = []
        async for event in stream:
            events.append(event)
            if event.type == "response.output_text.delta" and event.delta == "The":
                await worker.kill()
                await cluster.worker(CHAT, "tests.chat_engine:generate")
                gate.touch()
        assert numbers(events) == list(range(len(events)))
        final = events[-1]
        assert final.type == "response.completed"
        assert (reasoning_of(final.response), final.response.output_text) == ("Let me think.", TEXT)
        added = [event for event in events if event.type == "response.output_item.added"]
        assert [event.item.id for event in added] == [item.id for item in final.response.output]
        assert (await cluster.record(final.response.id))["attempt"] == 2
