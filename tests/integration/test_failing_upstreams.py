"""Real replicas in front of upstreams that are down, come back, or refuse: nobody's request is eaten by them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.cli.doctor.cluster import check_cluster
from lifecycle.cli.doctor.finding import Level
from lifecycle.local.redis_process import free_port
from lifecycle.store.connect import open_store
from lifecycle.types import ReplicaState
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings
from tests.upstream import DONE, Exchange, Upstream, chunk
from tests.waiting import wait_until

CALLS = 100
AT_ONCE = 20
MODEL = "m"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def cluster(
    make_settings: MakeSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Cluster]:
    """Two frontends without workers; leases that outlast a busy machine. The parameter is the heartbeat, in seconds."""
    settings = make_settings(
        heartbeat_secs=getattr(request, "param", 0.25), lease_secs=10.0, sweep_secs=0.25, concurrency=4
    )
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        yield cluster


async def answer(exchange: Exchange) -> None:
    """Play an upstream that is well."""
    if exchange.path.endswith("/models"):
        await exchange.head(kind="application/json")
        await exchange.send(json.dumps({"object": "list", "data": [{"id": MODEL}]}))
    else:
        await exchange.head()
        await exchange.send(chunk("hello", finish_reason="stop") + DONE)
    await exchange.end()


@asynccontextmanager
async def listening(port: int, script: Any = answer) -> AsyncIterator[Upstream]:
    upstream = Upstream(script, f"http://127.0.0.1:{port}/v1")
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", port)
    try:
        yield upstream
    finally:
        server.close()
        for exchange in upstream.exchanges:
            exchange.writer.close()


async def state_of(cluster: Cluster, worker: Process) -> str:
    replicas = (await cluster.get("/v1/replicas"))["data"]
    return next(str(replica["state"]) for replica in replicas if replica["pid"] == worker.pid)


async def until_state(cluster: Cluster, worker: Process, state: ReplicaState) -> None:
    async def reached() -> bool:
        return await state_of(cluster, worker) == state

    await wait_until(reached, what=f"a worker that is {state}")


async def call(cluster: Cluster, number: int, limit: asyncio.Semaphore) -> tuple[int, str]:
    """Ask one of the frontends, every second time for a stream. Return the status and the text."""
    url = cluster.frontends[number % 2].url + "/v1/chat/completions"
    async with limit:
        reply = await cluster.http.post(url, json=BODY | {"stream": number % 4 >= 2})
    return reply.status_code, reply.text


@pytest.mark.parametrize("cluster", [5.0], indirect=True)
async def test_a_dead_upstream_eats_no_request_and_comes_back_by_itself(cluster: Cluster) -> None:
    port = free_port()
    async with listening(free_port()) as well:
        await cluster.worker(MODEL, "openai", openai_base_url=well.url)
        async with listening(port) as dying:
            # Its next probe is far away, so it is a request that meets the dead upstream.
            worker = await cluster.worker(MODEL, "openai", openai_base_url=dying.url)
            await wait_until(lambda: dying.exchanges, what="the first probe")
        limit = asyncio.Semaphore(AT_ONCE)
        replies = await asyncio.gather(*(call(cluster, number, limit) for number in range(CALLS)))
        assert [status for status, _ in replies] == [200] * CALLS
        assert all("hello" in text and "error" not in text for _, text in replies)
        await until_state(cluster, worker, ReplicaState.UNHEALTHY)
        assert await cluster.metric("lifecycle_cluster_replicas", role="worker", state="unhealthy") == 1
        records = (await cluster.get(f"/v1/requests?limit={CALLS}"))["data"]
        assert max(record["attempt"] for record in records) == 2, "none met the dead upstream"
        async with listening(port) as revived:
            await until_state(cluster, worker, ReplicaState.READY)

            async def serves() -> bool:
                assert (await call(cluster, 0, limit))[0] == 200
                return any(exchange.path.endswith("/completions") for exchange in revived.exchanges)

            await wait_until(serves, what="a request at the upstream that came back")
    assert await cluster.inflight() == 0


async def test_a_model_without_a_healthy_worker_is_unavailable(cluster: Cluster) -> None:
    port = free_port()
    worker = await cluster.worker(MODEL, "openai", openai_base_url=f"http://user:secret@127.0.0.1:{port}/v1")
    await until_state(cluster, worker, ReplicaState.UNHEALTHY)
    assert [model["id"] for model in (await cluster.get("/v1/models"))["data"]] == [MODEL]
    for frontend in cluster.frontends:

        async def refused(url: str = frontend.url) -> bool:
            reply = await cluster.http.post(url + "/v1/chat/completions", json=BODY)
            error = reply.json()["error"]
            assert (reply.status_code, error["type"]) == (503, "service_unavailable")
            assert error["message"] == "cannot connect to the upstream"
            assert 1 <= int(reply.headers["retry-after"]) <= 11
            return bool(error["code"] == "no_healthy_worker")

        await wait_until(refused, what="a frontend that knows of the outage")
    async with open_store(cluster.settings) as store:
        findings = [finding for finding in await check_cluster(store) if finding.check == "health"]
    assert [finding.level for finding in findings] == [Level.WARN, Level.FAIL]
    assert "cannot connect to the upstream" in findings[0].message
    for text in (findings[0].message, (await cluster.http.get(cluster.frontends[0].url + "/v1/replicas")).text):
        assert "secret" not in text
        assert str(port) not in text


async def test_an_upstream_that_refuses_is_left_alone_until_it_is_well(cluster: Cluster) -> None:
    """It answers 503 to everything, with a time to wait that is longer than the worker's own."""
    refusing = True

    async def script(exchange: Exchange) -> None:
        if refusing:
            await exchange.head("503 Service Unavailable", "application/json", retry_after="42")
            await exchange.send(json.dumps({"error": {"message": "the model is being loaded"}}))
            await exchange.end()
        else:
            await answer(exchange)

    async with listening(free_port(), script) as upstream:
        refusing = False
        worker = await cluster.worker(MODEL, "openai", openai_base_url=upstream.url)
        limit = asyncio.Semaphore(1)
        assert (await call(cluster, 0, limit))[0] == 200
        refusing = True
        reply = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", json=BODY)
        assert reply.status_code == 503
        await until_state(cluster, worker, ReplicaState.UNHEALTHY)
        refusing = False
        await until_state(cluster, worker, ReplicaState.READY)

        async def served() -> bool:
            return (await call(cluster, 0, limit))[0] == 200

        await wait_until(served, what="a frontend that knows that the upstream is well")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_key_that_the_upstream_refuses_is_our_fault_and_not_to_be_repeated(
    cluster: Cluster, status: str
) -> None:
    refusing = False

    async def script(exchange: Exchange) -> None:
        if refusing:
            await exchange.head(status, "application/json", retry_after="9")
            await exchange.send(json.dumps({"error": {"message": "wrong key", "code": "invalid_api_key"}}))
            await exchange.end()
        else:
            await answer(exchange)

    async with listening(free_port(), script) as upstream:
        await cluster.worker(MODEL, "openai", openai_base_url=upstream.url)
        refusing = True
        for path, more in (("chat/completions", {}), ("messages", {"max_tokens": 5})):
            reply = await cluster.http.post(f"{cluster.frontends[0].url}/v1/{path}", json=BODY | more)
            assert (reply.status_code, reply.headers.get("x-should-retry")) == (500, "false")
            assert "LIFECYCLE_OPENAI_API_KEY" in reply.json()["error"]["message"]
            assert "wrong key" not in reply.text


def test_a_free_port_refuses_connections() -> None:
    """The tests above rely on it."""
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", free_port()))
