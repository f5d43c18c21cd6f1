"""A real engine: llama.cpp with a tiny random model, behind a worker and two frontends.

What a client gets through them is compared with what it gets from llama.cpp itself, and llama.cpp says which of its
slots are busy.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.settings import Settings
from tests.answers import comparable, joined
from tests.cluster import Cluster, running
from tests.llama_cpp.calls import MODEL, ONE_TOOL, REPEATABLE, SEVERAL_TOOLS, STRUCTURED
from tests.llama_cpp.engine import LlamaCpp, llama_cpp, need_packages
from tests.shared_cluster import borrowed, shared_cluster
from tests.sse import Stream, error_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.engines]

FREED_SECS = 5.0  # a token takes less than a millisecond; the limit is for a machine that is busy
CALL = {"model": MODEL, **REPEATABLE}
ENDLESS = {**CALL, "max_tokens": -1, "ignore_eos": True}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    need_packages()
    with llama_cpp(tmp_path_factory.mktemp("llama")) as engine:
        yield engine


@pytest.fixture(scope="module")
def shared(engine: LlamaCpp, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The processes. Tests take `cluster`, which lives in their own event loop."""
    settings = Settings(
        redis_url=redis_url,
        namespace=f"llama-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        openai_base_url=engine.url,
        headers_after_secs=5.0,
    )
    with shared_cluster(_with_the_engine(settings, tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@asynccontextmanager
async def _with_the_engine(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker([], "openai")  # it serves the models that the engine lists
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


async def unary(cluster: Cluster, url: str, **fields: Any) -> dict[str, Any]:
    """Return the comparable answer of the server at `url`."""
    answer = await cluster.http.post(url + "/v1/chat/completions", json={**CALL, **fields})
    assert answer.status_code == 200, answer.text
    return comparable(answer.json())


async def streamed(cluster: Cluster, url: str, **fields: Any) -> dict[str, Any]:
    """Return what the stream of the server at `url` adds up to."""
    body = {**CALL, **fields, "stream": True, "stream_options": {"include_usage": True}}
    async with cluster.http.stream("POST", url + "/v1/chat/completions", json=body) as response:
        events = await Stream(response).read()
    assert error_of(events) is None
    return joined(event.data for event in events[:-1])


@asynccontextmanager
async def generating(cluster: Cluster, engine: LlamaCpp) -> AsyncIterator[tuple[str, Stream]]:
    """Open an endless stream at the first frontend. Yields its request id once the engine's slot is busy."""
    assert engine.busy_slots() == 0
    url = cluster.frontends[0].url + "/v1/chat/completions"
    async with cluster.http.stream("POST", url, json={**ENDLESS, "stream": True}) as response:
        stream = Stream(response)
        await stream.read_tokens(20)
        assert engine.busy_slots() == 1
        yield response.headers["x-request-id"], stream


async def idle(engine: LlamaCpp) -> None:
    await wait_until(lambda: engine.busy_slots() == 0, FREED_SECS, "an idle slot")


# The answers are the engine's


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="text"),
        pytest.param({"logprobs": True, "top_logprobs": 3}, id="log probabilities"),
        pytest.param(STRUCTURED, id="structured output"),
        pytest.param({"stop": ["a", "b", "c", "d", "e", "f"]}, id="six stop strings"),
    ],
)
async def test_the_answer_is_the_engines_own(cluster: Cluster, engine: LlamaCpp, fields: dict[str, Any]) -> None:
    """Streamed and unary, at either frontend."""
    expected = await unary(cluster, engine.url, **fields)
    expected_stream = await streamed(cluster, engine.url, **fields)
    for frontend in cluster.frontends:
        assert await streamed(cluster, frontend.url, **fields) == expected_stream
        assert await unary(cluster, frontend.url, **fields) == expected


async def test_two_choices_are_those_of_the_engines_stream(cluster: Cluster, engine: LlamaCpp) -> None:
    """The unary answer is made of the stream, which in llama.cpp counts the tokens of another choice."""
    fields = {"n": 2, "temperature": 1.0, "logprobs": True}
    expected = await streamed(cluster, engine.url, **fields)
    texts = [choice["message"]["content"] for choice in expected["choices"]]
    assert len(set(texts)) == 2
    direct = await unary(cluster, engine.url, **fields)
    assert [choice["message"]["content"] for choice in direct["choices"]] == texts
    for frontend in cluster.frontends:
        assert await streamed(cluster, frontend.url, **fields) == expected
        assert await unary(cluster, frontend.url, **fields) == expected


@pytest.mark.parametrize("several", [False, True], ids=["one call", "parallel calls"])
async def test_tool_calls_are_the_engines_own(cluster: Cluster, engine: LlamaCpp, several: bool) -> None:
    fields = SEVERAL_TOOLS if several else ONE_TOOL
    expected = await unary(cluster, engine.url, **fields)
    calls = expected["choices"][0]["message"]["tool_calls"]
    assert {call["function"]["name"] for call in calls} <= {"weather", "clock"}
    if not several:
        assert expected["choices"][0]["finish_reason"] == "tool_calls"
        assert json.loads(calls[0]["function"]["arguments"])
    there, here = cluster.frontends
    assert await streamed(cluster, here.url, **fields) == await streamed(cluster, engine.url, **fields)
    assert await unary(cluster, there.url, **fields) == expected


async def test_a_text_completion_is_the_engines_own(cluster: Cluster, engine: LlamaCpp) -> None:
    body = {**CALL, "prompt": "Once", "logprobs": 2}
    del body["messages"]
    direct, through = [
        comparable((await cluster.http.post(url + "/v1/completions", json=body)).json())
        for url in (engine.url, cluster.frontends[0].url)
    ]
    assert through == direct


async def test_a_prompt_beyond_the_context_is_refused_in_the_engines_words(cluster: Cluster, engine: LlamaCpp) -> None:
    """The status is one that clients do not repeat."""
    body = {**CALL, "messages": [{"role": "user", "content": "long " * 5000}]}
    direct, through, stream = [
        await cluster.http.post(url + "/v1/chat/completions", json=fields)
        for url, fields in (
            (engine.url, body),
            (cluster.frontends[0].url, body),
            (cluster.frontends[1].url, {**body, "stream": True}),
        )
    ]
    error = direct.json()["error"]
    assert (direct.status_code, error["type"]) == (400, "exceed_context_size_error")
    for answer in (through, stream):
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == error["message"]
        assert answer.json()["error"]["type"] == error["type"]


# Its slot is free again


async def test_a_cancel_at_the_other_frontend_frees_the_slot(cluster: Cluster, engine: LlamaCpp) -> None:
    async with generating(cluster, engine) as (rid, stream):
        url = f"{cluster.frontends[1].url}/v1/requests/{rid}/cancel"
        answer = await cluster.http.post(url, json={"wait_ms": 10_000})
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        await idle(engine)
        error = error_of(await stream.read())
    assert error is not None
    assert error["error_type"] == "cancelled"


async def test_a_stop_frees_the_slot_and_keeps_the_text(cluster: Cluster, engine: LlamaCpp) -> None:
    async with generating(cluster, engine) as (rid, stream):
        url = f"{cluster.frontends[1].url}/v1/requests/{rid}/cancel"
        answer = await cluster.http.post(url, json={"mode": "stop", "wait_ms": 10_000})
        assert (answer.status_code, answer.json()["status"]) == (200, "completed")
        await idle(engine)
        events = await stream.read()
    assert error_of(events) is None
    assert joined(event.data for event in events[:-1])["choices"][0]["finish_reason"] == "stop"


async def test_a_client_that_disconnects_frees_the_slot(cluster: Cluster, engine: LlamaCpp) -> None:
    async with generating(cluster, engine) as (rid, _):
        pass
    await idle(engine)
    record = await wait_until(lambda: _ended(cluster, rid), what="the end of the request")
    assert (record["status"], record["error_type"]) == ("cancelled", "cancelled")


async def test_a_unary_client_that_disconnects_frees_the_slot(cluster: Cluster, engine: LlamaCpp) -> None:
    rid = f"unary-{secrets.token_hex(4)}"
    url = cluster.frontends[0].url + "/v1/chat/completions"
    call = asyncio.create_task(cluster.http.post(url, json=ENDLESS, headers={"X-Request-Id": rid}))
    await wait_until(lambda: engine.busy_slots() == 1, what="a busy slot")
    call.cancel()
    await asyncio.wait([call])
    await idle(engine)
    record = await wait_until(lambda: _ended(cluster, rid), what="the end of the request")
    assert (record["status"], record["cancel_mode"]) == ("cancelled", "kill")


async def _ended(cluster: Cluster, rid: str) -> dict[str, Any] | None:
    record = await cluster.record(rid)
    return record if record["finished_at"] else None
