"""Replicas that are drained, paused and resumed from another replica, as processes under real requests."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import ReplicaAction, Role
from tests.chaos.engines import numbers
from tests.chaos.signatures import text_of
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings
from tests.keys import Keys
from tests.sse import Stream, chat, error_of, post
from tests.waiting import wait_until

GATED = "tests.chaos.engines:gated"
UPSTREAM = """
from pathlib import Path


class Engine:
    async def __call__(self, request, context):
        yield "here"

    async def health(self):
        if Path("{away}").exists():
            raise RuntimeError("the upstream is away")


engine = Engine()
"""


async def listed(cluster: Cluster, process: Process) -> dict[str, Any]:
    """The replica as the last frontend shows it; empty when it is gone."""
    replicas = (await cluster.get("/v1/replicas", cluster.frontends[-1]))["data"]
    return next((replica for replica in replicas if replica["pid"] == process.pid), {})


async def instruct(cluster: Cluster, process: Process, action: str) -> httpx2.Response:
    """Send the instruction to the last frontend."""
    replica = await listed(cluster, process)
    return await cluster.http.post(f"{cluster.frontends[-1].url}/v1/replicas/{replica['id']}/{action}")


async def state(cluster: Cluster, process: Process, wanted: str) -> dict[str, Any]:
    async def is_shown() -> dict[str, Any] | None:
        replica = await listed(cluster, process)
        return replica if replica.get("state") == wanted else None

    return await wait_until(is_shown, what=f"the state {wanted}")


async def reaches(cluster: Cluster, rid: str, status: str) -> dict[str, Any]:
    async def has() -> dict[str, Any] | None:
        record = await cluster.record(rid)
        return record if record["status"] == status else None

    return await wait_until(has, what=f"{rid} is {status}")


async def heartbeats_pass(settings: Settings, worker: str, number: int) -> None:
    async with open_store(settings) as store:

        async def ticks() -> int:
            return int(await store.command("HGET", f"{store.keys.prefixes[0]}ticks", worker) or 0)

        last = await ticks() + number

        async def have_passed() -> bool:
            return await ticks() >= last

        await wait_until(have_passed)


async def attempts_used_up(settings: Settings, rid: str) -> int:
    async with open_store(settings) as store:
        prefix = store.keys.prefixes[store.keys.shard_of(rid)]
        return int(await store.command("HGET", f"{prefix}request:{rid}", "failures") or 0)


async def test_a_worker_is_drained_from_another_replica(settings: Settings, tmp_path: Path) -> None:
    gate, rids = tmp_path / "gate", [f"r{number}" for number in range(3)]
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(running(settings, tmp_path, frontends=2, workers=0))
        leaving = await cluster.worker("m", GATED, drain_timeout_secs=60.0)
        streams: list[Stream] = []
        for rid in rids:
            body, url = chat(f"{gate} 20 0", "m"), cluster.frontends[0].url
            streams.append(await stack.enter_async_context(post(cluster.http, url, body, X_Request_Id=rid)))
            await reaches(cluster, rid, "running")
        other = await cluster.worker("m", GATED)
        answer = await instruct(cluster, leaving, "drain")
        assert (answer.status_code, answer.json()["pid"]) == (202, leaving.pid)
        assert (await state(cluster, leaving, "draining"))["inflight"] == 3

        async with post(cluster.http, cluster.frontends[0].url, chat(f"{gate} 3 0", "m"), X_Request_Id="late") as late:
            record = await reaches(cluster, "late", "running")
            assert record["worker"] == (await listed(cluster, other))["id"]
            gate.touch()
            assert error_of(await late.read()) is None
        for stream, rid in zip(streams, rids, strict=True):
            assert (error_of(await stream.read()), text_of(stream.events)) == (None, numbers(20))
            assert (await cluster.record(rid))["attempt"] == 1
            assert await attempts_used_up(settings, rid) == 0
        async with asyncio.timeout(15):
            assert await leaving.process.wait() == 0
        assert await listed(cluster, leaving) == {}
        async with open_store(settings) as store:
            assert answer.json()["id"] not in await store.count_held(0, Role.WORKER)
        assert "is told to drain by anonymous" in leaving.log.read_text()
        cluster.workers.remove(leaving)


async def test_a_drain_moves_what_does_not_finish_in_time(settings: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running(settings, tmp_path, workers=0) as cluster:
        leaving = await cluster.worker("m", GATED, drain_timeout_secs=0.1, max_attempts=settings.max_attempts)
        body = chat(f"{gate} 3 0", "m")
        async with post(cluster.http, cluster.frontends[0].url, body, X_Request_Id="r1") as stream:
            await reaches(cluster, "r1", "running")
            await cluster.worker("m", GATED)
            assert (await instruct(cluster, leaving, "drain")).status_code == 202
            async with asyncio.timeout(15):
                assert await leaving.process.wait() == 0
            cluster.workers.remove(leaving)
            gate.touch()
            assert error_of(await stream.read()) is None
        assert (await cluster.record("r1"))["attempt"] == 2
        assert await attempts_used_up(settings, "r1") == 0


async def test_a_paused_worker_keeps_its_model_and_its_requests_wait(settings: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        worker = await cluster.worker("m", GATED)
        url = cluster.frontends[0].url
        async with (
            post(cluster.http, url, chat(f"{gate} 3 0", "m"), X_Request_Id="before") as before,
            AsyncExitStack() as stack,
        ):
            await reaches(cluster, "before", "running")
            assert (await instruct(cluster, worker, "pause")).status_code == 202
            paused = await state(cluster, worker, "paused")
            assert paused["inflight"] == 1
            assert [model["id"] for model in (await cluster.get("/v1/models"))["data"]] == ["m"]
            assert await cluster.metric("lifecycle_cluster_replicas", role="worker", state="paused") == 1
            waiting = [
                await stack.enter_async_context(
                    post(cluster.http, url, chat(f"{gate} 3 0", "m"), X_Request_Id=f"r{number}")
                )
                for number in range(3)
            ]
            gate.touch()
            assert error_of(await before.read()) is None, "what runs goes on"

            async def nothing_runs() -> bool:
                return bool((await listed(cluster, worker))["inflight"] == 0)

            await wait_until(nothing_runs)
            await heartbeats_pass(settings, paused["id"], 3)
            assert [(await cluster.record(f"r{number}"))["status"] for number in range(3)] == ["queued"] * 3
            assert (await instruct(cluster, worker, "resume")).status_code == 202
            for stream in waiting:
                assert (error_of(await stream.read()), text_of(stream.events)) == (None, numbers(3))
            await state(cluster, worker, "ready")


async def test_the_death_of_a_paused_worker_is_that_of_any(make_settings: MakeSettings, tmp_path: Path) -> None:
    gate, settings = tmp_path / "gate", make_settings(queue_without_workers=True)
    async with running(settings, tmp_path, workers=0) as cluster:
        worker, url = await cluster.worker("m", GATED), cluster.frontends[0].url
        async with (
            post(cluster.http, url, chat(f"{gate} 3 0", "m"), X_Request_Id="runs") as runs,
            AsyncExitStack() as stack,
        ):
            await reaches(cluster, "runs", "running")
            await instruct(cluster, worker, "pause")
            await state(cluster, worker, "paused")
            waits = await stack.enter_async_context(
                post(cluster.http, url, chat(f"{gate} 3 0", "m"), X_Request_Id="waits")
            )
            await worker.kill()
            cluster.workers.remove(worker)
            gate.touch()
            successor = await cluster.worker("m", GATED)
            assert (await listed(cluster, successor))["state"] == "ready", "a pause is not inherited"
            for stream in (runs, waits):
                assert (error_of(await stream.read()), text_of(stream.events)) == (None, numbers(3))
        assert (await cluster.record("runs"))["attempt"] == 2
        assert (await cluster.record("waits"))["attempt"] == 1


async def test_requests_wait_for_a_paused_worker_through_a_restart_of_its_upstream(
    settings: Settings, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    (tmp_path / "upstream.py").write_text(UPSTREAM.format(away=str(away)))
    async with running(settings, tmp_path, workers=0) as cluster:
        worker, url = await cluster.worker("m", "upstream.py:engine"), cluster.frontends[0].url
        await instruct(cluster, worker, "pause")
        await state(cluster, worker, "paused")
        away.touch()

        async def has_failed() -> bool:
            return (await listed(cluster, worker)).get("error") == "the upstream is away"

        await wait_until(has_failed)
        assert (await listed(cluster, worker))["state"] == "paused"
        async with post(cluster.http, url, chat("x", "m"), X_Request_Id="r1") as stream:
            await reaches(cluster, "r1", "queued")
            await heartbeats_pass(settings, (await listed(cluster, worker))["id"], 3)
            assert (await cluster.record("r1"))["status"] == "queued"
            away.unlink()

            async def has_recovered() -> bool:
                return "error" not in await listed(cluster, worker)

            await wait_until(has_recovered, timeout=30)  # resumed before, it would be unhealthy
            await instruct(cluster, worker, "resume")
            assert (error_of(await stream.read()), text_of(stream.events)) == (None, "here")


async def test_a_pause_outlives_the_data_of_redis(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("echo")
        await instruct(cluster, worker, "pause")
        before = await state(cluster, worker, "paused")
        async with open_store(settings) as store:
            await _forget(store)
        after = await state(cluster, worker, "paused")
        assert after["id"] == before["id"]
        await instruct(cluster, worker, "resume")
        await state(cluster, worker, "ready")


async def _forget(store: Store) -> None:
    """Lose the whole namespace, as a server that starts empty."""
    async for keys in store.scan(f"{store.settings.namespace}:*", 1000):
        for key in keys:
            await store.command("UNLINK", key)


@pytest.mark.parametrize("role", ["worker", "frontend"])
async def test_an_instruction_whose_message_is_lost_comes_with_the_heartbeat(
    settings: Settings, tmp_path: Path, role: str
) -> None:
    async with running(settings, tmp_path, frontends=2, workers=1) as cluster:
        process = cluster.workers[0] if role == "worker" else cluster.frontends[0]
        replica = await listed(cluster, process)
        async with open_store(settings) as store:
            entry = f"{store.keys.control}replica:{replica['id']}"
            await store.command("HSET", entry, "instruction", "1 drain operator:cli")
        async with asyncio.timeout(15):
            assert await process.process.wait() == 0
        (cluster.workers if role == "worker" else cluster.frontends).remove(process)


async def test_a_message_makes_it_immediate(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(heartbeat_secs=30.0, lease_secs=120.0)
    async with running(settings, tmp_path, frontends=2, workers=1) as cluster:
        await instruct(cluster, cluster.workers[0], "pause")
        await state(cluster, cluster.workers[0], "paused")
        leaving = cluster.frontends.pop(0)
        await instruct(cluster, leaving, "drain")
        async with asyncio.timeout(10):
            assert await leaving.process.wait() == 0


async def test_a_frontend_is_drained_by_another_and_by_itself(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings, gate = make_settings(drain_timeout_secs=60.0), tmp_path / "gate"
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker("m", GATED)
        leaving, staying = cluster.frontends
        async with post(cluster.http, leaving.url, chat(f"{gate} 9 0", "m"), X_Request_Id="r1") as stream:
            await reaches(cluster, "r1", "running")
            assert (await instruct(cluster, leaving, "drain")).status_code == 202
            assert (await state(cluster, leaving, "draining"))["inflight"] == 1
            assert (await cluster.http.get(leaving.url + "/ready")).status_code == 503
            assert (await instruct(cluster, leaving, "drain")).status_code == 202, "a repetition changes nothing"
            leaving.signal(signal.SIGTERM)  # of its orchestrator, which is no second signal
            gate.touch()
            assert (error_of(await stream.read()), text_of(stream.events)) == (None, numbers(9))
        async with asyncio.timeout(15):
            assert await leaving.process.wait() == 0
        cluster.frontends.remove(leaving)
        assert (await instruct(cluster, staying, "drain")).status_code == 202
        async with asyncio.timeout(15):
            assert await staying.process.wait() == 0
        cluster.frontends.clear()


async def test_what_makes_no_sense_is_refused(settings: Settings, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running(settings, tmp_path, workers=0) as cluster:
        worker, frontend = await cluster.worker("m", GATED, drain_timeout_secs=60.0), cluster.frontends[0]
        for action in ReplicaAction:
            unknown = await cluster.http.post(f"{frontend.url}/v1/replicas/worker-0/{action}")
            error = unknown.json()["error"]
            assert (unknown.status_code, error["code"], error["param"]) == (404, "replica_not_found", "id")
        for refused_action in ("pause", "resume"):
            refused = await instruct(cluster, frontend, refused_action)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_a_worker")
            assert "frontend" in refused.json()["error"]["message"]
        assert (await instruct(cluster, worker, "resume")).status_code == 202, "it is not paused: nothing changes"
        async with post(cluster.http, frontend.url, chat(f"{gate} 3 0", "m"), X_Request_Id="r1") as stream:
            await reaches(cluster, "r1", "running")
            await instruct(cluster, worker, "drain")
            await state(cluster, worker, "draining")
            for refused_action in ("pause", "resume"):
                refused = await instruct(cluster, worker, refused_action)
                assert (refused.status_code, refused.json()["error"]["code"]) == (409, "replica_draining")
                assert refused.headers["x-should-retry"] == "false"
            gate.touch()
            await stream.read()
        async with asyncio.timeout(15):
            assert await worker.process.wait() == 0
        cluster.workers.remove(worker)


async def test_it_is_for_operators_and_the_log_names_them(make_settings: MakeSettings, tmp_path: Path) -> None:
    keys = Keys.make(tmp_path)
    settings = make_settings(api_keys=str(keys.file))
    async with running(settings, tmp_path, headers=keys.bearer("ops")) as cluster:
        [worker], [frontend] = cluster.workers, cluster.frontends
        url = f"{frontend.url}/v1/replicas/{(await listed(cluster, worker))['id']}/pause"
        assert (await cluster.http.post(url, headers=keys.bearer("acme"))).status_code == 403
        assert (await cluster.http.post(url, headers={"Authorization": ""})).status_code == 401
        assert (await cluster.http.post(url)).status_code == 202
        await state(cluster, worker, "paused")
        assert "is told to pause by operator:ops" in worker.log.read_text()
