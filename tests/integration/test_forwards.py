"""Embeddings, rerank, score, tokenize and detokenize, from a user's plain module, through real replicas."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, running
from tests.conformance.calls import TERMINAL, cancel, refusal, until
from tests.shared_cluster import borrowed, shared_cluster

ENGINE = """
async def generate(request, context):
    what = request["input"]
    if what == "wait":
        await context.killed()
    elif what == "wait for a stop":
        await context.stopped()
    elif what == "text":
        yield "a text"
    elif what == "raise":
        raise ValueError("no vectors today")
    elif what != "nothing":
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -1e-07]}]
        yield {"id": "mine", "object": "list", "model": request["model"], "created": None, "data": data,
               "endpoint": context.endpoint, "usage": usage, "empty": {}, "none": []}
    if what == "twice":
        yield {"again": True}

generate.endpoints = ("embeddings", "rerank", "score", "tokenize", "detokenize")
"""
PATHS = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/rerank": "rerank",
    "/v1/score": "score",
    "/score": "score",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
}
DATA = [{"object": "embedding", "index": 0, "embedding": [0.5, -1e-07]}]
USAGE = {"prompt_tokens": 3, "total_tokens": 3}


def answer(endpoint: str = "embeddings", model: str = "vectors") -> dict[str, Any]:
    return {
        "id": "mine",
        "object": "list",
        "model": model,
        "created": None,
        "data": DATA,
        "endpoint": endpoint,
        "usage": USAGE,
        "empty": {},
        "none": [],
    }


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"forwards-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=10.0,
        sweep_secs=0.25,
        stop_grace_secs=0.3,
    )
    with shared_cluster(_started(settings, tmp_path_factory.mktemp("forwards"))) as cluster:
        yield cluster


@asynccontextmanager
async def _started(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    (directory / "vectors.py").write_text(ENGINE)
    async with running(settings, directory, frontends=2, workers=0) as cluster:
        await cluster.worker("vectors", "vectors:generate")
        await cluster.worker("words", "echo")
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


async def call(cluster: Cluster, path: str = "/v1/embeddings", **body: Any) -> httpx2.Response:
    return await cluster.http.post(cluster.frontends[0].url + path, json={"model": "vectors", "input": "hi"} | body)


async def end_of(cluster: Cluster, reply: httpx2.Response) -> dict[str, Any]:
    return await until(cluster, reply.headers["x-request-id"], *TERMINAL, frontend=cluster.frontends[1])


@pytest.mark.parametrize(("path", "endpoint"), PATHS.items())
async def test_the_answer_is_the_engines_own_object(cluster: Cluster, path: str, endpoint: str) -> None:
    reply = await call(cluster, path, stream=True, whatever={"a": [1]})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == answer(endpoint)
    record = await end_of(cluster, reply)
    assert (record["status"], record["endpoint"], record["request_type"]) == ("completed", endpoint, "unary")
    assert (record["usage"], record["output_events"]) == (USAGE, 1)
    assert record["first_token_at"] is not None
    listed = await cluster.get(f"/v1/requests?endpoint={endpoint}&limit=1", cluster.frontends[1])
    assert [found["id"] for found in listed["data"]] == [reply.headers["x-request-id"]]


async def test_a_reader_gets_the_answer_as_one_event(cluster: Cluster) -> None:
    reply = await call(cluster)
    rid = reply.headers["x-request-id"]
    assert rid.startswith("embd-")
    url = f"{cluster.frontends[1].url}/v1/requests/{rid}/stream"
    stream = await cluster.http.get(url)
    identifier, data, done = stream.text.split("\n", 2)
    assert (identifier, done) == ("id: 1-1", "\ndata: [DONE]\n\n")
    assert json.loads(data.removeprefix("data: ")) == reply.json()
    assert (await cluster.http.get(url, headers={"Last-Event-ID": "1-1"})).status_code == 204


async def test_the_input_is_counted(cluster: Cluster) -> None:
    before = await cluster.metric("lifecycle_input_sequence_tokens_sum", model="vectors")
    await end_of(cluster, await call(cluster))
    assert await cluster.metric("lifecycle_input_sequence_tokens_sum", model="vectors") == before + 3


async def test_the_sdk_gets_vectors(cluster: Cluster) -> None:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        client = openai.AsyncOpenAI(base_url=cluster.frontends[0].url + "/v1", api_key="none", http_client=http)
        vectors = await client.embeddings.create(model="vectors", input="hi", encoding_format="float")
        assert vectors.data[0].embedding == DATA[0]["embedding"]
        assert vectors.usage.prompt_tokens == 3
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model="words", input="hi")
        assert refused.value.code == "unsupported_endpoint"
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="nobody", input="hi")


async def test_chat_is_refused_where_only_embeddings_are_served(cluster: Cluster) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    for path in ("/v1/chat/completions", "/v1/completions"):
        error = refusal(await call(cluster, path, **body, prompt="hi"), 400)
        assert error["code"] == "unsupported_endpoint"
        assert "'vectors'" in error["message"]


async def test_a_call_without_a_model_goes_to_the_only_one(cluster: Cluster) -> None:
    """The engine is told the model that it is. The model without the endpoint does not count."""
    for body in ({"input": "hi"}, {"input": "hi", "model": None}):
        reply = await cluster.http.post(cluster.frontends[0].url + "/v1/embeddings", json=body)
        assert reply.json() == answer()
        assert (await end_of(cluster, reply))["model"] == "vectors"


async def test_a_call_without_a_model_is_refused_where_there_are_several(cluster: Cluster) -> None:
    another = await cluster.worker(["vectors-2", "vectors-3"], "vectors:generate")
    try:
        reply = await cluster.http.post(cluster.frontends[0].url + "/tokenize", json={"input": "hi"})
        error = refusal(reply, 400)
        assert (error["param"], error["type"]) == ("model", "invalid_request_error")
        assert "3 models" in error["message"]
    finally:
        await another.terminate()
        cluster.workers.remove(another)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("[]", None),
        ("{", None),
        ('{"model": 5}', "model"),
        ('{"model": ""}', "model"),
        ('{"model": "a\\u0000"}', "model"),
    ],
)
async def test_what_no_engine_could_serve_is_refused(cluster: Cluster, body: str, param: str | None) -> None:
    reply = await cluster.http.post(cluster.frontends[0].url + "/v1/rerank", content=body)
    assert refusal(reply, 400)["param"] == param


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("text", "the engine yielded a value of type str; for the endpoint embeddings it must yield exactly one dict"),
        ("twice", "the engine yielded a second event; for the endpoint embeddings it must yield exactly one dict"),
        ("nothing", "the engine ended without an answer; for this endpoint it must yield exactly one dict"),
        ("raise", "no vectors today"),
    ],
)
async def test_an_engine_that_does_not_answer_with_one_dict_fails(cluster: Cluster, what: str, words: str) -> None:
    reply = await call(cluster, input=what)
    assert words in refusal(reply, 500)["message"]
    record = await end_of(cluster, reply)
    assert (record["status"], record["error_type"]) == ("failed", "internal")


@pytest.mark.parametrize(("what", "mode"), [("wait", "kill"), ("wait", "stop"), ("wait for a stop", "stop")])
async def test_a_cancel_at_another_frontend_ends_it(cluster: Cluster, what: str, mode: str) -> None:
    """A stop too: there is no part of an answer that it could leave."""
    rid = f"cancelled-{mode}-{len(what)}"
    sent = asyncio.create_task(
        cluster.http.post(
            cluster.frontends[0].url + "/v1/embeddings",
            json={"model": "vectors", "input": what},
            headers={"X-Request-Id": rid},
        )
    )
    await until(cluster, rid, "running")
    reply = await cancel(cluster, rid, cluster.frontends[1], mode=mode, reason="no need")
    assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    assert refusal(await sent, 499)["message"] == "no need"
    assert (await call(cluster)).status_code == 200


async def test_a_deadline_ends_it(cluster: Cluster) -> None:
    url = cluster.frontends[0].url + "/v1/embeddings"
    body = {"model": "vectors", "input": "wait"}
    reply = await cluster.http.post(url, json=body, headers={"X-Deadline-Secs": "0.5"})
    assert refusal(reply, 504)["error_type"] == "deadline"


async def test_workers_of_one_model_may_serve_different_endpoints(cluster: Cluster) -> None:
    """Each call reaches a worker that offers its endpoint, whichever took it from the queue."""
    workers = [await cluster.worker("mixed", engine) for engine in ("vectors:generate", "echo")]
    chat = {"model": "mixed", "messages": [{"role": "user", "content": "hi"}]}
    try:
        replies = await asyncio.gather(
            *(call(cluster, model="mixed") for _ in range(6)),
            *(call(cluster, "/v1/chat/completions", **chat) for _ in range(6)),
        )
        assert [reply.status_code for reply in replies] == [200] * 12
        assert [reply.json() for reply in replies[:6]] == [answer(model="mixed")] * 6
    finally:
        for worker in workers:
            await worker.terminate()
            cluster.workers.remove(worker)


async def test_the_roster_shows_the_endpoints(cluster: Cluster) -> None:
    replicas = (await cluster.get("/v1/replicas"))["data"]
    shown = {replica["models"][0]: replica["endpoints"] for replica in replicas if replica["role"] == "worker"}
    assert shown["vectors"] == dict.fromkeys(("embeddings", "rerank", "score", "tokenize", "detokenize"), "native")
    assert shown["words"].keys() >= {"chat_completions", "completions"}
    assert "embeddings" not in shown["words"]
