"""Orderly moves use up no attempt: `attempt` counts every start, and MAX_ATTEMPTS only those that failed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.types import ReplicaState, Role
from tests.chaos.engines import numbers
from tests.chaos.signatures import text_of
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings, MakeStore
from tests.sse import chat, error_of, post
from tests.unit.world import World
from tests.waiting import wait_until
from tests.workers import serving

GATED = "tests.chaos.engines:gated"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """One attempt only: whatever uses up one ends the request."""
    return make_settings(max_attempts=1, drain_timeout_secs=0.1)


async def failures(settings: Settings, rid: str) -> int:
    """How many attempts of the request Redis counts as failed."""
    async with open_store(settings) as store:
        prefix = store.keys.prefixes[store.keys.shard_of(rid)]
        return int(await store.command("HGET", f"{prefix}request:{rid}", "failures") or 0)


async def test_a_request_passes_through_many_workers_that_leave(
    make_settings: MakeSettings, make_store: MakeStore
) -> None:
    settings = make_settings(max_attempts=1, drain_timeout_secs=0.0, lease_secs=60.0, heartbeat_secs=0.1)
    world = World(make_store(settings))
    await world.open()
    for name in ("w0", "w1"):
        await world.store.leave(name, Role.WORKER)
    started = asyncio.Event()
    answers = False

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        started.set()
        if not answers:
            await context.killed()
        yield "done"

    await world.admit()
    for attempt in range(1, 5):
        async with serving(settings, engine):
            await started.wait()
            assert (await world.record()).attempt == attempt
        started.clear()
        assert (await world.record()).status == "queued"
    answers = True
    async with serving(settings, engine):

        async def has_ended() -> bool:
            return (await world.record()).status.terminal

        await wait_until(has_ended)
    record = await world.record()
    assert (record.status, record.attempt) == ("completed", 5)
    assert await failures(settings, "r") == 0


async def _runs(cluster: Cluster, rid: str) -> None:
    async def runs() -> bool:
        return bool((await cluster.record(rid))["status"] == "running")

    await wait_until(runs)


async def _state(cluster: Cluster, worker: Process) -> str:
    replicas = (await cluster.get("/v1/replicas"))["data"]
    return next((str(replica["state"]) for replica in replicas if replica["pid"] == worker.pid), "")


@pytest.mark.parametrize("killed", ["while it drains", "without a warning"])
async def test_a_worker_that_is_killed_at_the_end_of_its_drain(settings: Settings, tmp_path: Path, killed: str) -> None:
    """An orchestrator kills what has not left in time; that is no fault of the requests."""
    gate, drains = tmp_path / "gate", killed == "while it drains"
    async with running(settings, tmp_path, workers=0) as cluster:
        leaving = await cluster.worker("m", GATED, drain_timeout_secs=60.0)
        async with post(cluster.http, cluster.frontends[0].url, chat(f"{gate} 3 0", "m"), X_Request_Id="r1") as stream:
            await _runs(cluster, "r1")
            await cluster.worker("m", GATED)
            if drains:
                leaving.signal(signal.SIGTERM)

                async def is_draining() -> bool:
                    return await _state(cluster, leaving) == ReplicaState.DRAINING

                await wait_until(is_draining)
            await leaving.kill()
            cluster.workers.remove(leaving)
            gate.touch()
            events = await stream.read()
        error = error_of(events)
        if drains:
            assert (error, text_of(events)) == (None, numbers(3))
            assert (await cluster.record("r1"))["attempt"] == 2
            assert await failures(settings, "r1") == 0
        else:
            assert error is not None
            assert error["error_type"] == "worker_lost"
