"""Forward embeddings, tokenize and detokenize to llama.cpp, and compare with its own answers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.conformance.calls import refusal
from tests.llama_cpp.calls import MODEL
from tests.llama_cpp.engine import LlamaCpp, llama_cpp, need_packages

pytestmark = [pytest.mark.slow, pytest.mark.engines]

CALLS = {
    "/v1/embeddings": {"model": MODEL, "input": ["one text", "another"]},
    "/tokenize": {"content": "one text", "with_pieces": True},
    "/detokenize": {"tokens": [333, 334, 261]},
}
NOT_SERVED = ("/v1/rerank", "/v1/score")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[LlamaCpp]:
    need_packages()
    with llama_cpp(tmp_path, "embeddings") as engine:
        yield engine


async def test_llama_cpp_embeds_and_tokenizes(engine: LlamaCpp, redis_url: str, tmp_path: Path) -> None:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"llama-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        openai_base_url=engine.url,
    )
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker([], "openai")
        await _compare(cluster, engine)
        for path in NOT_SERVED:
            reply = await cluster.http.post(cluster.frontends[0].url + path, json={"query": "q", "documents": ["d"]})
            assert refusal(reply, 400)["code"] == "unsupported_endpoint"


async def _compare(cluster: Cluster, engine: LlamaCpp) -> None:
    for number, (path, body) in enumerate(CALLS.items()):
        direct = await cluster.http.post(engine.url + path, json=body)
        through = await cluster.http.post(cluster.frontends[number % 2].url + path, json=body)
        assert (direct.status_code, through.status_code) == (200, 200), (direct.text, through.text)
        assert through.json() == direct.json()
