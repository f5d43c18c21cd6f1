"""Forwards through two frontends and the openai engine, compared with the upstream's own answers."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.cluster import Cluster, running
from tests.conformance.calls import cancel, refusal, until
from tests.conftest import MakeSettings
from tests.upstream import Exchange, Serve, Upstream
from tests.waiting import wait_until

MODEL = "m"
VECTOR = [0.25, -1.0, 3.5]
RERANKED = {
    "id": "rerank-1",
    "model": MODEL,
    "usage": {"total_tokens": 9},
    "results": [{"index": 1, "document": {"text": "Paris"}, "relevance_score": 0.99}],
}
SCORED = {"id": "score-1", "object": "list", "data": [{"index": 0, "object": "score", "score": 1.0}], "usage": {}}
TOKENIZED = {"count": 2, "max_model_len": 4096, "tokens": [1, 2**53 + 1], "token_strs": None}
DETOKENIZED = {"prompt": "h\u2028i"}
CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "/v1/rerank": ("/v1/rerank", {"query": "capital", "documents": ["Rome", "Paris"], "top_n": 1}, RERANKED),
    "/rerank": ("/v1/rerank", {"query": "capital", "documents": ["Rome", "Paris"]}, RERANKED),
    "/v1/score": ("/v1/score", {"text_1": "a", "text_2": ["b"]}, SCORED),
    "/score": ("/v1/score", {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": -1}, SCORED),
    "/tokenize": ("/tokenize", {"prompt": "hi", "add_special_tokens": False}, TOKENIZED),
    "/detokenize": ("/detokenize", {"tokens": [1, 2]}, DETOKENIZED),
}
ANSWERS = {path: answer for path, _, answer in CALLS.values()}


async def script(exchange: Exchange) -> None:
    """Serve a model for embeddings; the text to embed says what happens."""
    body, path = exchange.body, exchange.path
    if path == "/v1/models":
        await exchange.answer({"object": "list", "data": [{"id": MODEL}]})
    elif body == {}:
        known = path in ANSWERS or path == "/v1/embeddings"
        await exchange.answer({"error": {"message": "no"}}, "400 Bad Request" if known else "404 Not Found")
    elif path != "/v1/embeddings":
        await exchange.answer(ANSWERS[path])
    elif body["input"] == "too long":
        error = {"message": "too many tokens", "type": "BadRequestError", "param": "input", "code": 400}
        await exchange.answer({"error": error}, "400 Bad Request")
    elif body["input"] == "list":
        await exchange.answer([1, 2])
    elif body["input"] == "large":
        await exchange.answer({"data": "x" * 200_000})
    elif body["input"] != "slow":
        await exchange.answer(embedding(body))


def embedding(body: dict[str, Any]) -> dict[str, Any]:
    packed = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
    vector = packed if body.get("encoding_format") == "base64" else VECTOR
    return {
        "id": "embd-upstream",
        "object": "list",
        "created": 1700000000,
        "model": MODEL,
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": None},
    }


@pytest.fixture
async def stack(make_settings: MakeSettings, tmp_path: Path, serve: Serve) -> AsyncIterator[tuple[Cluster, Upstream]]:
    upstream, _ = await serve(script)
    settings = make_settings(lease_secs=10.0, max_output_bytes=100_000)
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker([], "openai", openai_base_url=upstream.url)
        upstream.exchanges.clear()
        yield cluster, upstream


def forwarded(upstream: Upstream) -> list[Exchange]:
    return [exchange for exchange in upstream.exchanges if exchange.path != "/v1/models"]


async def test_every_forward_is_the_upstreams_own_answer(stack: tuple[Cluster, Upstream]) -> None:
    cluster, upstream = stack
    for number, (path, (sent_to, body, answer)) in enumerate(CALLS.items()):
        call = {"model": MODEL, **body}
        reply = await cluster.http.post(cluster.frontends[number % 2].url + path, json=call)
        assert (reply.status_code, reply.json()) == (200, answer), path
        exchange = forwarded(upstream)[-1]
        assert (exchange.path, exchange.body) == (sent_to, call)
        assert exchange.headers["accept"] == "application/json"
        assert exchange.headers["x-request-id"] == reply.headers["x-request-id"] + ".1"
    record = await cluster.record(reply.headers["x-request-id"])
    assert (record["endpoint"], record["model"], record["usage"]) == ("detokenize", MODEL, None)


async def test_the_sdk_gets_what_it_gets_from_the_upstream(stack: tuple[Cluster, Upstream]) -> None:
    cluster, upstream = stack
    found = []
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        for url in (upstream.url, cluster.frontends[0].url + "/v1"):
            client = openai.AsyncOpenAI(base_url=url, api_key="none", http_client=http)
            packed = await client.embeddings.create(model=MODEL, input=["hi"])  # the SDK asks for base64
            plain = await client.embeddings.create(model=MODEL, input="hi", encoding_format="float", dimensions=3)
            found.append((packed.model_dump(), plain.model_dump()))
        assert found[0] == found[1]
        assert found[1][0]["data"][0]["embedding"] == VECTOR
        with pytest.raises(openai.BadRequestError, match="too many tokens") as refused:
            await client.embeddings.create(model=MODEL, input="too long")
        assert (refused.value.param, refused.value.type) == ("input", "BadRequestError")
        with pytest.raises(openai.BadRequestError) as unsupported:
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
        assert unsupported.value.code == "unsupported_endpoint"
    listed = (await cluster.get("/v1/requests?endpoint=embeddings"))["data"]
    assert [record["status"] for record in listed] == ["failed", "completed", "completed"]
    assert (listed[1]["usage"]["prompt_tokens"], listed[1]["output_tokens"]) == (5, 0)


async def test_a_cancel_at_the_other_frontend_closes_the_upstreams_connection(stack: tuple[Cluster, Upstream]) -> None:
    cluster, upstream = stack
    url, rid = cluster.frontends[0].url + "/v1/embeddings", "slow-embedding"
    body = {"model": MODEL, "input": "slow"}
    sent = asyncio.create_task(cluster.http.post(url, json=body, headers={"X-Request-Id": rid}))
    await until(cluster, rid, "running")
    await wait_until(lambda: forwarded(upstream), what="the call at the upstream")
    reply = await cancel(cluster, rid, cluster.frontends[1])
    assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    await wait_until(lambda: forwarded(upstream)[0] in upstream.left, what="a closed connection")
    assert refusal(await sent, 499)["error_type"] == "cancelled"


async def test_answers_that_cannot_be_passed_on(stack: tuple[Cluster, Upstream]) -> None:
    cluster, _ = stack
    url = cluster.frontends[0].url + "/v1/embeddings"
    for what, words, kind in (
        ("list", "the upstream's answer is not a JSON object", "internal"),
        ("large", "the upstream's answer has more than 100000 bytes, the limit", "overload"),
    ):
        reply = await cluster.http.post(url, json={"model": MODEL, "input": what})
        error = refusal(reply, 500)
        assert (words in error["message"], error["error_type"]) == (True, kind), error


async def test_the_command_shows_the_endpoints(stack: tuple[Cluster, Upstream]) -> None:
    cluster, _ = stack
    (worker,) = [replica for replica in (await cluster.get("/v1/replicas"))["data"] if replica["role"] == "worker"]
    names = ("embeddings", "rerank", "score", "tokenize", "detokenize")
    assert worker["endpoints"] == dict.fromkeys(names, "native")
