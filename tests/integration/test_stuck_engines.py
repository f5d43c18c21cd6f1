"""An engine that cannot be ended does not keep its worker from leaving, and its requests are told so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings, MakeStore
from tests.sse import chat, error_of, post
from tests.unit.world import MODEL, World
from tests.waiting import wait_until

LEAVES_SECS = 20.0
ENGINES = """
import asyncio, threading, time
from pathlib import Path

async def swallow():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def in_loop(request, context):
    yield "begun"
    await asyncio.sleep(0.01)
    Path("begun").touch()
    while True:
        time.sleep(0.01)

def in_thread(request, context):
    yield "begun"
    Path("begun").touch()
    while True:
        time.sleep(0.01)

in_thread.run_in_thread = True

async def in_executor(request, context):
    yield "begun"
    Path("begun").touch()
    await asyncio.to_thread(threading.Event().wait)

async def swallowing(request, context):
    yield "begun"
    Path("begun").touch()
    await swallow()

async def quick(request, context):
    yield "done"

class Closing:
    async def __call__(self, request, context):
        yield "begun"
        Path("begun").touch()
        await context.killed()

    async def aclose(self):
        await swallow()

closing = Closing()

class Starting(Closing):
    async def startup(self):
        Path("begun").touch()
        await swallow()

starting = Starting()

class Probed(Closing):
    aclose = None
    async def health(self):
        Path("begun").touch()
        await swallow()

probed = Probed()

class Asked(Closing):
    aclose = None
    async def waiting(self):
        Path("begun").touch()
        await swallow()

asked = Asked()
"""


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Leases that outlast the test: what ends a request is the worker's own report."""
    return make_settings(
        lease_secs=60.0, heartbeat_secs=0.2, drain_timeout_secs=0.5, kill_grace_secs=0.5, max_attempts=1
    )


@pytest.fixture
async def cluster(settings: Settings, tmp_path: Path) -> AsyncIterator[Cluster]:
    (tmp_path / "engines.py").write_text(ENGINES)
    async with running(settings, tmp_path, workers=0) as cluster:
        yield cluster


async def leaves(worker: Process) -> int:
    """The exit code of a worker that is told once to leave."""
    worker.signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(LEAVES_SECS):
            return await worker.process.wait()
    except TimeoutError:
        await worker.kill()
        raise AssertionError(f"the worker did not leave:\n{worker.log.read_text()}") from None


async def _only_frontends(cluster: Cluster) -> bool:
    """Return whether the worker is listed no more. Requests of one whose loop is blocked end before that."""
    return [replica["role"] for replica in (await cluster.get("/v1/replicas"))["data"]] == ["frontend"]


@pytest.mark.parametrize("engine", ["swallowing", "in_thread", "in_executor", "in_loop"])
async def test_a_request_that_does_not_end(cluster: Cluster, engine: str) -> None:
    worker = await cluster.worker("m", f"engines:{engine}")
    async with post(cluster.http, cluster.frontends[0].url, chat("hello", "m"), X_Request_Id="r1") as stream:
        await wait_until((cluster.directory / "begun").exists)
        code = await leaves(worker)
        error = error_of(await stream.read())
    assert error is not None
    assert error["error_type"] == "worker_lost"
    assert (await cluster.record("r1"))["status"] == "failed"
    await wait_until(lambda: _only_frontends(cluster), what="the list has no worker any more")
    assert code == 1
    log = worker.log.read_text()
    assert f"engines:{engine}" in log
    assert engine == "in_executor" or "r1" in log.partition("the process ends without it")[0].splitlines()[-1]


@pytest.mark.parametrize(("engine", "call"), [("closing", "aclose()"), ("probed", "health()"), ("asked", "waiting()")])
async def test_a_call_that_does_not_return(cluster: Cluster, engine: str, call: str) -> None:
    worker = await cluster.worker("m", f"engines:{engine}", concurrency="auto" if engine == "asked" else 4)
    if engine != "closing":
        await wait_until((cluster.directory / "begun").exists, timeout=20)
    assert await leaves(worker) == 1
    log = worker.log.read_text()
    assert f"the engine engines:{engine} does not end" in log
    assert call in log


async def test_a_start_that_does_not_return(cluster: Cluster) -> None:
    worker = await cluster._start("worker", ["--model", "m", "--engine", "engines:starting"], {})
    cluster.workers.append(worker)
    await wait_until((cluster.directory / "begun").exists, timeout=20)
    assert await leaves(worker) == 1
    log = worker.log.read_text()
    assert "the engine engines:starting does not end" in log
    assert "startup()" in log


@pytest.mark.leaves_inflight
async def test_a_second_signal_does_not_wait_for_an_engine(cluster: Cluster) -> None:
    worker = await cluster.worker("m", "engines:swallowing", drain_timeout_secs=600.0)
    async with post(cluster.http, cluster.frontends[0].url, chat("hello", "m")):
        await wait_until((cluster.directory / "begun").exists)
        worker.signal(signal.SIGTERM)
        await wait_until(lambda: "the worker drains" in worker.log.read_text())
        assert await leaves(worker) == 1


async def test_a_worker_inside_another_program_only_returns(settings: Settings, make_store: MakeStore) -> None:
    """Leave the end of the process to its owner."""
    free, begun = asyncio.Event(), asyncio.Event()

    async def stubborn(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "begun"
        begun.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    world = World(make_store(settings))
    await world.open()
    await world.admit("r1")
    async with Connections.open(settings) as connections:
        worker = Worker(settings, connections, MODEL, stubborn)
        serving = asyncio.create_task(worker.run())
        try:
            await begun.wait()
            worker.drain()
            async with asyncio.timeout(LEAVES_SECS):
                await serving
            assert worker.unended == ["request r1"]
            assert (await world.record("r1")).error_type == "worker_lost"
        finally:
            free.set()
            serving.cancel()
