"""The Messages API before a real engine: as llama.cpp serves it itself, and translated into its chat completions."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.integration.messages.client import sdk_for
from tests.llama_cpp.calls import CLOCK, MODEL, WEATHER
from tests.llama_cpp.engine import LlamaCpp, llama_cpp, need_packages
from tests.llama_cpp.vocabulary import CALLS_TOOLS
from tests.shared_cluster import borrowed, shared_cluster

pytestmark = [pytest.mark.slow, pytest.mark.engines]

CHAT_ONLY = "translated"
CALL: dict[str, Any] = {
    "max_tokens": 60,
    "messages": [{"role": "user", "content": "Say something."}],
    "extra_body": {"temperature": 0, "seed": 7, "cache_prompt": False},
}
TOOLS: dict[str, Any] = {
    "max_tokens": 400,
    "tools": [{"name": "weather", "input_schema": WEATHER}, {"name": "clock", "input_schema": CLOCK}],
    "tool_choice": {"type": "any"},
    "extra_body": {**CALL["extra_body"], "logit_bias": CALLS_TOOLS},
}


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


async def created(url: str, **fields: Any) -> Message:
    async with sdk_for(url, max_retries=0) as sdk:
        answer: Message = await sdk.messages.create(**{**CALL, **fields})
        return answer


async def streamed(url: str, **fields: Any) -> Message:
    async with sdk_for(url, max_retries=0) as sdk, sdk.messages.stream(**{**CALL, **fields}) as stream:
        answer: Message = await stream.get_final_message()
        return answer


def shown(message: Message, *ignored: str) -> dict[str, Any]:
    """Return what is the same of each answer to a call: ids differ, and how much of a prompt was in a cache."""
    found: dict[str, Any] = message.to_dict(exclude_none=True)
    for block in found["content"]:
        if block["type"] == "tool_use":
            block["id"] = ""
        block.pop("signature", None)
    usage = found["usage"]
    prompt = usage["input_tokens"] + usage.pop("cache_read_input_tokens", 0)
    return {**found, "id": "", "model": "", "usage": (prompt, usage["output_tokens"])}


def base(engine: LlamaCpp) -> str:
    return engine.url.removesuffix("/v1")


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        pytest.param(MODEL, {}, id="native"),
        pytest.param(MODEL, TOOLS, id="native with tools"),
        pytest.param(CHAT_ONLY, {}, id="translated"),
    ],
)
async def test_an_answer_is_that_of_the_engine(
    cluster: Cluster, engine: LlamaCpp, model: str, extra: dict[str, Any]
) -> None:
    own = shown(await created(base(engine), model=MODEL, **extra))
    here, there = (frontend.url for frontend in cluster.frontends)
    assert shown(await created(here, model=model, **extra)) == own
    assert shown(await streamed(there, model=model, **extra)) == own
    assert own["content"]


async def test_tool_calls_through_chat(cluster: Cluster) -> None:
    """The engine's own Messages API ignores `logit_bias`, without which the tiny model calls no tool."""
    here, there = (frontend.url for frontend in cluster.frontends)
    whole = await created(here, model=CHAT_ONLY, **TOOLS)
    assert shown(await streamed(there, model=CHAT_ONLY, **TOOLS)) == shown(whole)
    uses = [block for block in whole.content if block.type == "tool_use"]
    assert {use.name for use in uses} <= {"weather", "clock"}
    assert len({use.id for use in uses}) == len(uses) > 1
    for use in uses:
        if use.name == "weather":
            assert use.input["city"] in ("Paris", "Rome")
        else:
            assert use.input["zone"] in ("UTC", "CET")


async def test_tokens_are_counted_by_the_engine(cluster: Cluster, engine: LlamaCpp) -> None:
    counted = []
    for url in (base(engine), cluster.frontends[0].url):
        async with sdk_for(url) as sdk:
            counted.append((await sdk.messages.count_tokens(model=MODEL, messages=CALL["messages"])).input_tokens)
    assert counted[0] == counted[1] > 0
    async with sdk_for(cluster.frontends[0].url) as sdk:
        with pytest.raises(anthropic.BadRequestError, match="count_tokens"):
            await sdk.messages.count_tokens(model=CHAT_ONLY, messages=CALL["messages"])


async def test_workers_announce_how_they_serve_it(cluster: Cluster) -> None:
    found = {
        replica["models"][0]: replica["endpoints"]
        for replica in (await cluster.get("/v1/replicas"))["data"]
        if replica["role"] == "worker"
    }
    assert (found[MODEL]["messages"], found[MODEL]["count_tokens"]) == ("native", "native")
    assert found[CHAT_ONLY]["messages"] == "translated"
    assert "count_tokens" not in found[CHAT_ONLY]
