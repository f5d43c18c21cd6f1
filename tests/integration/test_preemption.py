"""Preemption before an engine that can resume: the better request gets the slot, and the other one's text is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.sse import Stream, chat, error_of, post, text_of
from tests.waiting import wait_until

ENGINE = "tests.engines:resumed"
COUNT = 60


def whole(count: int = COUNT) -> str:
    return "".join(f"{number} " for number in range(count))


@pytest.fixture
def cluster_of(make_settings: MakeSettings, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def cluster(engine: str = ENGINE, **settings: Any) -> AsyncIterator[Cluster]:
        """Two frontends, and one worker with one slot."""
        made = make_settings(**{"concurrency": 1, "preempt": True, "heartbeat_secs": 1.0, "lease_secs": 8.0} | settings)
        async with running(made, tmp_path, frontends=2, workers=0) as cluster:
            await cluster.worker("m", engine)
            yield cluster

    return cluster


@asynccontextmanager
async def long(cluster: Cluster) -> AsyncIterator[Stream]:
    """The stream of a request of priority 5 that has the slot."""
    body = chat(f"{COUNT} 0.03", "m", priority=5)
    async with post(cluster.http, cluster.frontends[0].url, body, X_Request_Id="long") as stream:
        await stream.read_tokens(5)
        yield stream


async def ask(cluster: Cluster, rid: str, priority: int, count: int = 3, pause: float = 0.01) -> str:
    """Ask for a whole answer through the second frontend."""
    body = chat(f"{count} {pause}", "m", stream=False, priority=priority)
    url = cluster.frontends[1].url
    answer = await cluster.http.post(url + "/v1/chat/completions", json=body, headers={"X-Request-Id": rid})
    return str(answer.json()["choices"][0]["message"]["content"])


async def has(cluster: Cluster, rid: str, status: str, tokens: int = 0) -> bool:
    answer = await cluster.http.get(f"{cluster.frontends[0].url}/v1/requests/{rid}")
    record = answer.json() if answer.status_code == 200 else {}
    return record.get("status") == status and record["output_tokens"] >= tokens


async def rest(stream: Stream) -> str:
    async with asyncio.timeout(30):
        events = await stream.read()
    assert error_of(events) is None
    return text_of(events)


async def test_a_better_request_gets_the_slot_and_the_other_text_is_whole(cluster_of: Any) -> None:
    async with cluster_of() as cluster:
        async with long(cluster) as stream:
            assert await ask(cluster, "better", -1) == whole(3)
            assert not await has(cluster, "long", "completed")
            assert await rest(stream) == whole()
        better, moved = await cluster.record("better"), await cluster.record("long")
        assert better["started_at"] - better["created_at"] < 1
        assert (better["attempt"], better["preemptions"]) == (1, 0)
        assert (moved["status"], moved["preemptions"], moved["output_tokens"]) == ("completed", 1, COUNT)
        entries = (await cluster.get("/v1/requests/long/timeline"))["data"]
        assert [entry["preempted_by"] for entry in entries if entry.get("outcome") == "preempted"] == [-1]
        assert await cluster.inflight() == 0
        for name, value in (("preemptions", 1), ("requests", 1), ("output_tokens", COUNT)):
            assert await cluster.metric(f"lifecycle_{name}_total", model="m") == value
        for name in ("inflight", "queued"):
            assert await cluster.metric(f"lifecycle_{name}_requests", model="m") == 0


async def test_a_unary_request_is_moved_too_and_shown_as_queued(cluster_of: Any) -> None:
    async with cluster_of() as cluster:
        asking = asyncio.create_task(ask(cluster, "long", 5, COUNT, 0.03))
        await wait_until(lambda: has(cluster, "long", "running", tokens=5))
        better = asyncio.create_task(ask(cluster, "better", 0, COUNT, 0.03))
        await wait_until(lambda: has(cluster, "long", "queued"), what="a request that waits again")
        (model,) = (await cluster.get("/v1/queue"))["data"]
        assert (model["queued"], await cluster.inflight()) == (1, 2)
        assert (await asking, await better) == (whole(), whole())


async def test_it_is_off_by_default(make_settings: MakeSettings, cluster_of: Any) -> None:
    assert not make_settings().preempt
    async with cluster_of(preempt=False) as cluster, long(cluster) as stream:
        better = asyncio.create_task(ask(cluster, "better", -1))
        assert await rest(stream) == whole()
        assert await better == whole(3)
        assert (await cluster.record("long"))["preemptions"] == 0


async def test_silence_while_it_waits_is_no_inactivity(cluster_of: Any) -> None:
    async with cluster_of(backend_stream_timeout_secs=1) as cluster, long(cluster) as stream:
        assert await ask(cluster, "better", 0, 35, 0.1) == whole(35)
        assert await rest(stream) == whole()
        silent = (await cluster.record("better"))["finished_at"] - (await cluster.record("better"))["started_at"]
        assert silent > 2, "longer than the worker and the frontend allow"


async def test_a_worker_that_is_killed_in_the_middle_loses_nothing(cluster_of: Any) -> None:
    """It has taken the better request and moved the other one, whose engine has not ended yet."""
    async with cluster_of("tests.engines:clinging", kill_grace_secs=60.0, lease_secs=4.0) as cluster:
        async with long(cluster) as stream:
            better = asyncio.create_task(ask(cluster, "better", -1))
            await wait_until(lambda: has(cluster, "better", "running"))
            await wait_until(lambda: has(cluster, "long", "queued"))
            await cluster.workers.pop().kill()
            await cluster.worker("m", ENGINE)
            assert await rest(stream) == whole()
            assert await better == whole(3)
        records = [await cluster.record(rid) for rid in ("long", "better")]
        assert [(r["status"], r["attempt"], r["preemptions"]) for r in records] == [
            ("completed", 2, 1),
            ("completed", 2, 0),
        ]
        ended = [
            await cluster.metric("lifecycle_requests_total", frontend, model="m") for frontend in cluster.frontends
        ]
        assert (ended, await cluster.inflight()) == ([1, 1], 0)
        assert await cluster.metric("lifecycle_cluster_requests_total", model="m") == 2
