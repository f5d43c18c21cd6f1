"""The Responses API through the official SDK, before engines that serve only chat completions."""

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
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseStreamEvent

from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.conformance.calls import until
from tests.conftest import MakeSettings
from tests.shared_cluster import borrowed, shared_cluster
from tests.upstream import DONE, USAGE, Exchange, Upstream, chunk, within_bound
from tests.waiting import wait_until

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


# An upstream that serves only chat


class ChatOnly:
    """Play an upstream without the Responses API. After the first chunks of an answer it waits for its client to go."""

    def __init__(self, *parts: str, status: str = "200 OK") -> None:
        self.parts, self.status = parts, status
        self.upstream = Upstream(self.play)

    async def play(self, exchange: Exchange) -> None:
        if exchange.path.endswith("/chat/completions") and exchange.body.get("messages"):
            await exchange.head(self.status)
            for part in self.parts:
                await exchange.send(part)
            if self.parts[-1] == DONE or self.status != "200 OK":
                await exchange.end()
            return
        known = exchange.path.endswith(("/models", "/chat/completions"))
        status = "200 OK" if exchange.path.endswith("/models") else "400 Bad Request" if known else "404 Not Found"
        await exchange.head(status, kind="application/json")
        await exchange.send('{"object":"list","data":[{"id":"m"}]}' if known else '{"detail":"Not Found"}')
        await exchange.end()


@asynccontextmanager
async def before(upstream: ChatOnly, settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    """Run two frontends and a worker in front of an upstream."""
    port = free_port()
    server = await asyncio.start_server(upstream.upstream.serve, "127.0.0.1", port)
    try:
        async with running(settings, directory, frontends=2, workers=0) as cluster:
            await cluster.worker("m", "openai", openai_base_url=f"http://127.0.0.1:{port}/v1")
            yield cluster
    finally:
        server.close()
        for exchange in upstream.upstream.exchanges:
            exchange.writer.close()


async def test_a_cancel_at_the_other_replica_closes_the_upstreams_connection(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    upstream = ChatOnly(chunk("a"), chunk("b"))
    async with before(upstream, make_settings(), tmp_path) as cluster:
        taker, other = cluster.frontends
        async with sdk_of(taker) as here, sdk_of(other) as there:
            begun = await here.responses.create(model="m", input=TEXT, background=True)

            async def half() -> bool:
                return (await here.responses.retrieve(begun.id)).output_text == "ab"

            await wait_until(half)
            upstream.upstream.client_left.clear()
            cancelled = await there.responses.cancel(begun.id)
            assert (cancelled.status, cancelled.output_text) == ("cancelled", "ab")
            await within_bound(upstream.upstream.client_left)
            assert [exchange.path for exchange in upstream.upstream.left][-1] == "/v1/chat/completions"
        sent = next(exchange.body for exchange in upstream.upstream.exchanges if "messages" in exchange.body)
        assert sent == {
            "model": "m",
            "messages": [{"role": "user", "content": TEXT}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }


async def test_an_upstreams_answer_and_its_refusal_reach_the_client(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    upstream = ChatOnly(
        chunk(None, delta={"role": "assistant", "reasoning": "hm"}),
        chunk(None, delta={"tool_calls": [call]}),
        chunk(None, delta={}, finish_reason="tool_calls"),
        USAGE,
        DONE,
    )
    async with before(upstream, make_settings(), tmp_path) as cluster, sdk_of(cluster.frontends[1]) as sdk:
        answer = await sdk.responses.create(model="m", input=TEXT, tools=[WEATHER])
        assert [item.type for item in answer.output] == ["reasoning", "function_call"]
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 2)
        upstream.parts, upstream.status = ('{"error":{"message":"slow down","type":"t","code":"c"}}',), "429 Slow"
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.responses.create(model="m", input=TEXT)
        assert (raised.value.type, raised.value.code) == ("t", "c")
