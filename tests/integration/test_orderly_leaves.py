"""Whoever waits for a drain learns whether the replica has left in order, with nothing left, or was lost before."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

import lifecycle
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings
from tests.integration.test_replica_instructions import GATED, _forget, listed, reaches, state
from tests.library import given
from tests.programs import Operator
from tests.sse import chat, error_of, post

_POLL_SECS = 0.02
STUBBORN = """
import time


async def engine(request, context):
    yield "here"
    time.sleep(600)
"""


@pytest.fixture
def operator(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(capsys, "--redis-url", settings.redis_url, "--namespace", settings.namespace)


async def seen_until_gone(cluster: Cluster, process: Process) -> list[tuple[str, int]]:
    """Return the states and numbers of inflight requests in which the replica is listed, until it is not."""
    seen: list[tuple[str, int]] = []
    while replica := await listed(cluster, process):
        shown = (replica["state"], replica["inflight"])
        if shown not in seen[-1:]:
            seen.append(shown)
        await asyncio.sleep(_POLL_SECS)
    return seen


async def kill(cluster: Cluster, process: Process) -> None:
    await process.kill()
    (cluster.workers if process in cluster.workers else cluster.frontends).remove(process)


@pytest.mark.parametrize("role", ["worker", "frontend"])
async def test_a_replica_that_is_killed_while_it_drains_has_not_left(
    settings: Settings, tmp_path: Path, operator: Operator, role: str
) -> None:
    gate = tmp_path / "gate"
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        worker = await cluster.worker("m", GATED, drain_timeout_secs=60.0)
        first, last = cluster.frontends
        killed = worker if role == "worker" else first
        id = (await listed(cluster, killed))["id"]
        with suppress(httpx2.TransportError):  # of the frontend that is killed
            async with post(cluster.http, first.url, chat(f"{gate} 3 0", "m"), X_Request_Id="r1"):
                await reaches(cluster, "r1", "running")
                waiting = asyncio.create_task(operator("replicas", "drain", id, "--wait"))
                await state(cluster, killed, "draining")
                await kill(cluster, killed)
                code, printed, said = await waiting
        assert (code, printed, said.count("\n")) == (1, "", 1)
        assert f"{id} has not left in order" in said

        code, printed, said = await operator("replicas", "drain", id, "--wait")
        assert (code, printed, said.count("\n"), "has not left in order" in said) == (1, "", 1, True)
        answer = await cluster.http.post(f"{last.url}/v1/replicas/{id}/drain")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "replica_not_found")
        assert "has not left in order" in answer.json()["error"]["message"]


async def test_the_json_of_a_replica_that_was_lost_says_so(
    settings: Settings, tmp_path: Path, operator: Operator
) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("echo")
        id = (await listed(cluster, worker))["id"]
        worker.signal(signal.SIGSTOP)  # so that it does not follow before it is killed
        waiting = asyncio.create_task(operator("replicas", "drain", id, "--wait", "--json"))
        await kill(cluster, worker)
        code, printed, said = await waiting
        assert (code, json.loads(printed)["left"], said.count("\n")) == (1, False, 1)


@pytest.mark.parametrize("how", ["told", "SIGTERM"])
@pytest.mark.parametrize("role", ["worker", "frontend"])
async def test_nothing_inflight_is_shown_before_a_replica_is_gone(
    settings: Settings, tmp_path: Path, operator: Operator, role: str, how: str
) -> None:
    gate = tmp_path / "gate"
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker("m", GATED, drain_timeout_secs=60.0)
        leaving = cluster.workers[0] if role == "worker" else cluster.frontends[0]
        id = (await listed(cluster, leaving))["id"]
        async with post(cluster.http, cluster.frontends[0].url, chat(f"{gate} 3 0", "m"), X_Request_Id="r1") as stream:
            await reaches(cluster, "r1", "running")
            if how == "told":
                assert (await operator("replicas", "drain", id))[0] == 0
            else:
                leaving.signal(signal.SIGTERM)
            await state(cluster, leaving, "draining")
            watching = asyncio.create_task(seen_until_gone(cluster, leaving))
            await asyncio.sleep(5 * _POLL_SECS)
            gate.touch()
            assert error_of(await stream.read()) is None
        assert await watching == [("draining", 1), ("draining", 0)]
        code, printed, _ = await operator("replicas", "drain", id, "--wait")
        assert (code, printed) == (0, f"{id}: has left\n"), "also for who asks too late"
        async with asyncio.timeout(15):
            assert await leaving.process.wait() == 0
        (cluster.workers if role == "worker" else cluster.frontends).remove(leaving)
        for url in (None, cluster.frontends[-1].url):
            arguments: dict[str, Any] = {"url": url} if url else given(settings)
            async with lifecycle.AsyncClient(**arguments) as client:
                with pytest.raises(lifecycle.NotFound, match="has left"):
                    await client.drain(id)


async def test_who_waits_goes_on_when_redis_loses_its_data(
    settings: Settings, tmp_path: Path, operator: Operator
) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("m", GATED, drain_timeout_secs=2.0)
        id, gate = (await listed(cluster, worker))["id"], tmp_path / "gate"
        async with post(cluster.http, cluster.frontends[0].url, chat(f"{gate} 3 0", "m"), X_Request_Id="r1"):
            await reaches(cluster, "r1", "running")
            waiting = asyncio.create_task(operator("replicas", "drain", id, "--wait"))
            await state(cluster, worker, "draining")
            async with open_store(settings) as store:
                await _forget(store)
            assert await waiting == (0, f"{id}: has left\n", "")
        assert await worker.process.wait() == 0
        cluster.workers.remove(worker)


async def test_a_worker_whose_engine_does_not_end_has_not_left_in_order(
    make_settings: MakeSettings, tmp_path: Path, operator: Operator
) -> None:
    settings = make_settings(drain_timeout_secs=0.1, kill_grace_secs=0.1)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("m", "stubborn.py:engine")
        id = (await listed(cluster, worker))["id"]
        async with post(cluster.http, cluster.frontends[0].url, chat("x", "m"), X_Request_Id="r1"):
            await reaches(cluster, "r1", "running")
            worker.signal(signal.SIGTERM)  # the blocked event loop would not see an instruction
            code, printed, said = await operator("replicas", "drain", id, "--wait")
        assert (code, printed, "has not left in order" in said) == (1, "", True)
        assert await worker.process.wait() == 1
        cluster.workers.remove(worker)
