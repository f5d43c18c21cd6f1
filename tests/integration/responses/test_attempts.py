"""A worker that dies before any output: another one answers, and the readers see one response."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.integration.responses.client import MODEL, TEXT, all_of, must_be_contiguous, retrieved, sdk_of
from tests.waiting import wait_until


async def test_another_worker_does_not_repeat_the_openings(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"responses-{secrets.token_hex(4)}",
        heartbeat_secs=0.25,
        lease_secs=1.5,
        sweep_secs=0.25,
    )
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        for _ in range(2):
            await cluster.worker(MODEL, "tests.response_engine:generate")
        gate = tmp_path / "gate"
        async with sdk_of(cluster.frontends[0]) as here, sdk_of(cluster.frontends[1]) as there:
            stream = await here.responses.create(
                model=MODEL, input=TEXT, background=True, stream=True, metadata={"starts": str(gate)}
            )
            events = [await anext(stream) for _ in range(3)]
            assert [event.type for event in events] == ["response.created", "response.queued", "response.in_progress"]
            assert events[0].type == "response.created"
            rid = events[0].response.id
            reading = asyncio.create_task(all_of(await there.responses.retrieve(rid, stream=True, starting_after=1)))
            await (await _worker_of(cluster, rid)).kill()
            await retrieved(there, rid, "queued", "in_progress")
            gate.touch()
            events += await all_of(stream)
            must_be_contiguous(events)
            assert [event.type for event in events].count("response.in_progress") == 1
            assert events[-1].type == "response.completed"
            assert await reading == events[2:]
            assert (await cluster.record(rid))["attempt"] == 2


async def _worker_of(cluster: Cluster, rid: str) -> Process:
    async def running_at() -> str | None:
        worker: str | None = (await cluster.record(rid))["worker"]
        return worker

    worker = await wait_until(running_at)
    replicas = (await cluster.get("/v1/replicas"))["data"]
    pid = next(replica["pid"] for replica in replicas if replica["id"] == worker)
    return next(process for process in cluster.workers if process.pid == pid)
