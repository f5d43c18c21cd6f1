"""The Responses API before a real engine: as llama.cpp serves it itself, and translated into its chat completions."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.llama_cpp.calls import MODEL, RESPONSE, RESPONSE_TOOLS, WEATHER
from tests.llama_cpp.engine import LlamaCpp, llama_cpp, need_packages
from tests.shared_cluster import borrowed, shared_cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.engines]

CHAT_ONLY = "translated"
BOTH = pytest.mark.parametrize("model", [MODEL, CHAT_ONLY])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    need_packages()
    with llama_cpp(tmp_path_factory.mktemp("llama")) as engine:
        yield engine


@pytest.fixture(scope="module")
def shared(engine: LlamaCpp, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"llama-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        openai_base_url=engine.url,
    )
    with shared_cluster(_started(settings, tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@asynccontextmanager
async def _started(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker(MODEL, "openai")
        await cluster.worker(CHAT_ONLY, "tests.llama_cpp.chat_only:engine")
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


@asynccontextmanager
async def sdk_of(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        yield openai.AsyncOpenAI(base_url=url + "/v1", api_key="none", http_client=http, max_retries=0)


async def answered(url: str, call: dict[str, Any], **fields: Any) -> Response:
    async with sdk_of(url) as sdk:
        answer: Response = await sdk.responses.create(**{**call, **fields})
        return answer


async def streamed(url: str, call: dict[str, Any], **fields: Any) -> Response:
    """Return what the library's own accumulator makes of the stream, unless it is incomplete."""
    async with sdk_of(url) as sdk, sdk.responses.stream(**{**call, **fields}) as stream:
        events = [event async for event in stream]
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert isinstance(last.response, Response)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == last.response.output_text
    return last.response


def calls_of(response: Response) -> list[tuple[str, str]]:
    return [(item.name, item.arguments) for item in response.output if isinstance(item, ResponseFunctionToolCall)]


def used(response: Response) -> tuple[int, int]:
    assert response.usage is not None
    return response.usage.input_tokens, response.usage.output_tokens


@pytest.mark.parametrize("call", [RESPONSE, RESPONSE_TOOLS], ids=["text", "tools"])
@BOTH
async def test_the_answer_is_the_engines_own(
    cluster: Cluster, engine: LlamaCpp, model: str, call: dict[str, Any]
) -> None:
    own = await answered(engine.url, call)
    there, here = cluster.frontends
    for response in (await answered(there.url, call, model=model), await streamed(here.url, call, model=model)):
        assert (response.output_text, calls_of(response), used(response)) == (
            own.output_text,
            calls_of(own),
            used(own),
        )
        # llama.cpp itself calls an answer complete that it has cut off.
        assert response.status == ("completed" if model == MODEL else "incomplete")


async def test_log_probabilities_and_structured_output_are_translated(cluster: Cluster) -> None:
    text = {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}}
    response = await streamed(cluster.frontends[0].url, RESPONSE, model=CHAT_ONLY, text=text, top_logprobs=2)
    assert json.loads(response.output_text)["city"] in ("Paris", "Rome")
    (item,) = response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert "".join(token.token for token in part.logprobs) == part.text
    assert {len(token.top_logprobs) for token in part.logprobs} == {2}


@BOTH
async def test_a_cancel_at_the_other_frontend_frees_the_slot(cluster: Cluster, engine: LlamaCpp, model: str) -> None:
    endless = {**RESPONSE, "max_output_tokens": None, "extra_body": {"ignore_eos": True}, "background": True}
    begun = await answered(cluster.frontends[0].url, endless, model=model)
    async with sdk_of(cluster.frontends[1].url) as there:

        async def talks() -> bool:
            return len((await there.responses.retrieve(begun.id)).output_text) > 20

        await wait_until(talks)
        assert engine.busy_slots() == 1
        assert (await there.responses.cancel(begun.id)).status == "cancelled"
    await wait_until(lambda: engine.busy_slots() == 0, what="an idle slot")
