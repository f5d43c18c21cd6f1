"""`Idempotency-Key`: a repeated call attaches to the request that the first one started."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.chaos.proxy import FaultProxy, Then
from tests.cluster import Cluster
from tests.conformance.calls import cancel, ended, endless, journaled, lines, refusal, send, until
from tests.sse import chat, post
from tests.waiting import wait_until

WORDS = "one two three four five"


@pytest.fixture
def key() -> str:
    return f"key-{secrets.token_hex(8)}"


@pytest.fixture
async def cut_off(cluster: Cluster) -> AsyncIterator[FaultProxy]:
    """A network between a client and the first frontend."""
    async with FaultProxy(cluster.frontends[0].url.replace("http", "redis")) as proxy:
        yield proxy


def url_of(proxy: FaultProxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


async def started(cluster: Cluster, model: str) -> float:
    counts = [await cluster.metric("lifecycle_requests_started_total", f, model=model) for f in cluster.frontends]
    return sum(counts)


async def disconnects(cluster: Cluster) -> float:
    return await cluster.metric("lifecycle_client_disconnects_total", model="echo")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_repetition_anywhere_gets_the_same_answer(cluster: Cluster, key: str, stream: bool) -> None:
    before = await started(cluster, "echo")
    body = chat(WORDS) | {"stream": stream}
    answers = [await send(cluster, body, frontend, Idempotency_Key=key) for frontend in cluster.frontends * 2]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 1
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true", "true"]
    assert await started(cluster, "echo") == before + 1


async def test_calls_at_once_are_one_request(cluster: Cluster, key: str) -> None:
    before = await started(cluster, "echo")
    calls = [send(cluster, chat(WORDS), frontend, Idempotency_Key=key) for frontend in cluster.frontends * 8]
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await started(cluster, "echo") == before + 1


async def test_the_first_id_stays_whatever_a_proxy_makes_up(
    cluster: Cluster, key: str, new_id: Callable[[], str]
) -> None:
    first, second = new_id(), new_id()
    for frontend, rid in zip(cluster.frontends, (first, second), strict=True):
        answer = await send(cluster, chat(WORDS), frontend, Idempotency_Key=key, X_Request_Id=rid)
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, first)
    answer = await send(cluster, chat(WORDS), Idempotency_Key=key)
    assert answer.headers["x-request-id"] == first


async def test_another_body_is_refused(cluster: Cluster, key: str) -> None:
    assert (await send(cluster, chat(WORDS), Idempotency_Key=key)).status_code == 200
    answer = await send(cluster, chat("something else"), Idempotency_Key=key)
    error = refusal(answer, 422)
    assert (error["type"], error["code"]) == ("invalid_request_error", "idempotency_key_reused")
    assert error["param"] == "Idempotency-Key"
    assert answer.headers["x-should-retry"] == "false"


async def test_the_same_key_at_another_endpoint_is_another(cluster: Cluster, key: str) -> None:
    chatted = await send(cluster, chat(WORDS), Idempotency_Key=key)
    body = {"model": "echo", "prompt": WORDS}
    answer = await cluster.http.post(
        cluster.frontends[0].url + "/v1/completions", json=body, headers={"Idempotency-Key": key}
    )
    assert answer.json()["choices"][0]["text"] == WORDS
    assert answer.headers["x-request-id"] != chatted.headers["x-request-id"]


async def test_an_id_in_use_without_the_key_is_a_conflict(cluster: Cluster, key: str, rid: str) -> None:
    assert (await send(cluster, chat(WORDS), X_Request_Id=rid)).status_code == 200
    answer = await send(cluster, chat(WORDS), X_Request_Id=rid, Idempotency_Key=key)
    assert refusal(answer, 409)["code"] == "request_id_in_use"


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "tab\there", "caf\u00e9"])
async def test_a_malformed_key_is_refused(cluster: Cluster, key: str) -> None:
    before = await started(cluster, "echo")
    url = cluster.frontends[0].url + "/v1/chat/completions"
    answer = await cluster.http.post(url, json=chat(WORDS), headers={b"Idempotency-Key": key.encode("latin-1")})
    assert refusal(answer, 400)["param"] == "Idempotency-Key"
    assert await started(cluster, "echo") == before


async def test_a_failure_is_replayed_and_not_repeated(cluster: Cluster, key: str) -> None:
    answers = [await send(cluster, chat(WORDS, "raiser", stream=False), Idempotency_Key=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert [answer.headers["x-should-retry"] for answer in answers] == ["false", "false"]
    assert answers[0].json() == answers[1].json()


async def test_the_first_connection_may_die_while_the_repetition_reads(cluster: Cluster, key: str) -> None:
    body = endless()
    async with post(cluster.http, cluster.frontends[1].url, body, Idempotency_Key=key) as second:
        await second.read_tokens(1)
        rid = second.response.headers["x-request-id"]
        async with post(cluster.http, cluster.frontends[0].url, body, Idempotency_Key=key) as first:
            await first.read_tokens(3)
            assert first.response.headers["x-request-id"] == rid
        await second.read_tokens(20)
        assert (await cluster.record(rid))["status"] == "running"
        await cancel(cluster, rid)
    assert (await ended(cluster, rid))["status"] == "cancelled"


async def test_a_disconnect_waits_for_the_repetition(cluster: Cluster, key: str) -> None:
    """The repetition reads from the start."""
    body, lost = endless(), await disconnects(cluster)
    async with post(cluster.http, cluster.frontends[0].url, body, Idempotency_Key=key) as first:
        text = await first.read_tokens(5)
        rid = first.response.headers["x-request-id"]

    async def noticed() -> bool:
        return await disconnects(cluster) == lost + 1

    await wait_until(noticed, what="the disconnect being noticed")
    assert (await cluster.record(rid))["status"] == "running"
    async with post(cluster.http, cluster.frontends[1].url, body, Idempotency_Key=key) as second:
        assert (await second.read_tokens(5)) == text
        await cancel(cluster, rid)
        await second.read()


async def test_without_a_repetition_it_is_cancelled(cluster: Cluster, key: str) -> None:
    headers = {"Idempotency_Key": key, "X_Disconnect_Grace_Secs": "0"}
    async with post(cluster.http, cluster.frontends[0].url, endless(), **headers) as first:
        await first.read_tokens(1)
        rid = first.response.headers["x-request-id"]
    record = await ended(cluster, rid)
    assert (record["status"], record["cancel_reason"]) == ("cancelled", "The client disconnected")


@pytest.fixture
async def sdk(cut_off: FaultProxy) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        yield openai.AsyncOpenAI(base_url=url_of(cut_off) + "/v1", api_key="none", http_client=http)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_sdks_own_retry_after_a_cut_is_one_request(
    cluster: Cluster, cut_off: FaultProxy, sdk: openai.AsyncOpenAI, key: str, stream: bool
) -> None:
    """The call arrives and is served; the connection is reset when its answer comes."""
    before = await started(cluster, "echo")
    rule = cut_off.on_reply(b"HTTP/1.1 200", Then.RESET)
    answer: Any = await sdk.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": WORDS}],
        stream=stream,
        extra_headers={"Idempotency-Key": key},
    )
    text = ""
    if stream:
        async for chunk in answer:
            text += chunk.choices[0].delta.content or ""
    else:
        text = answer.choices[0].message.content
    assert rule.spent
    assert text == WORDS
    assert await started(cluster, "echo") == before + 1


async def test_a_cut_while_the_engine_works_does_not_start_it_twice(
    cluster: Cluster, cut_off: FaultProxy, sdk: openai.AsyncOpenAI, key: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    body = journaled(journal) | {"stream": False}
    call = asyncio.create_task(sdk.chat.completions.create(**body, extra_headers={"Idempotency-Key": key}))
    await wait_until(lambda: lines(journal), what="the engine's start")
    cut_off.reset()
    (record,) = (await cluster.get("/v1/requests?status=inflight&model=single"))["data"]

    async def attached_again() -> bool:
        return cut_off.links > 0

    await wait_until(attached_again, what="the SDK's retry")
    assert (await until(cluster, record["id"], "running"))["attempt"] == 1
    answer = await cancel(cluster, record["id"], mode="stop")
    assert answer.json()["status"] == "completed"
    assert (await call).id == record["id"]
    assert [line.split()[0] for line in lines(journal)] == ["start", "stop"]
