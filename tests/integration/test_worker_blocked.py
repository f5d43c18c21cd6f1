"""An engine blocks the event loop of its worker, as synchronous model code in an `async def` does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings
from tests.sse import chat, error_of, post, text_of
from tests.waiting import wait_until

LEASES = 3  # that pass during a blockage
PROMPT = "very-secret-prompt"
ENGINE = """
import asyncio, time
from pathlib import Path

async def generate(request, context):
    words = request["messages"][-1]["content"]
    if words.startswith("block"):
        yield "begun "
        await asyncio.sleep(0.01)
        Path("blocked").touch()
        block(words)
        yield "done"
        return
    for number in range(30):
        yield f"{number} "
        await asyncio.sleep(0.03)

def block(words):
    while not Path("free").exists():
        time.sleep(0.01)

async def startup():
    block("")

async def loading(request, context):
    yield "loaded"

loading.startup = startup
"""


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(max_attempts=1, drain_timeout_secs=1.0)


@pytest.fixture
async def cluster(settings: Settings, tmp_path: Path) -> AsyncIterator[Cluster]:
    """One frontend, and the engine's file."""
    (tmp_path / "model.py").write_text(ENGINE)
    async with running(settings, tmp_path, workers=0) as cluster:
        yield cluster


async def replica(cluster: Cluster, process: Process) -> dict[str, Any] | None:
    found = (await cluster.get("/v1/replicas"))["data"]
    return next((shown for shown in found if shown["pid"] == process.pid), None)


async def outlives(cluster: Cluster, process: Process, leases: int = LEASES) -> None:
    """Wait until leases have passed, in all of which the worker has kept its id."""
    shown = await replica(cluster, process)
    assert shown is not None, process.log.read_text()
    clock = asyncio.get_running_loop().time
    since = clock()

    async def passed() -> bool:
        now = await replica(cluster, process)
        assert now is not None, process.log.read_text()
        assert now["id"] == shown["id"]
        return clock() - since > leases * cluster.settings.lease_secs

    await wait_until(passed, timeout=30, what=f"{leases} leases")


async def test_costs_no_request_and_names_what_blocks(cluster: Cluster) -> None:
    worker = await cluster.worker("m", "model:generate")
    url = cluster.frontends[0].url
    async with post(cluster.http, url, chat("count", "m")) as neighbour:
        await neighbour.read_tokens(2)
        async with post(cluster.http, url, chat(f"block {PROMPT}", "m")) as blocking:
            await wait_until((cluster.directory / "blocked").exists)
            await outlives(cluster, worker)
            (cluster.directory / "free").touch()
            assert text_of(await blocking.read()) == "begun done"
        events = await neighbour.read()
    assert (error_of(events), text_of(events)) == (None, "".join(f"{number} " for number in range(30)))
    assert {event.id.partition("-")[0] for event in events if event.id} == {"1"}
    log = worker.log.read_text()
    await wait_until(lambda: "the event loop runs again; it was blocked for" in worker.log.read_text())
    assert log.count("the event loop has been blocked") == 1
    assert "model.py:20 in block" in log
    assert "model.py:11 in generate" in log
    assert PROMPT not in log
    answer = await cluster.http.post(url + "/v1/chat/completions", json=chat("count", "m") | {"stream": False})
    assert answer.status_code == 200
    assert "fenced" not in worker.log.read_text()


async def test_a_worker_that_is_blocked_for_too_long_expires_and_comes_back(cluster: Cluster) -> None:
    worker = await cluster.worker("m", "model:generate", blocked_loop_secs=1.5)
    shown = await replica(cluster, worker)
    assert shown is not None
    async with post(cluster.http, cluster.frontends[0].url, chat("block", "m")) as stream:
        error = error_of(await stream.read())
    assert error is not None
    assert error["error_type"] == "worker_lost"
    assert await replica(cluster, worker) is None
    assert "LIFECYCLE_BLOCKED_LOOP_SECS=1.5; heartbeats stop" in worker.log.read_text()
    (cluster.directory / "free").touch()

    async def is_back() -> bool:
        now = await replica(cluster, worker)
        return now is not None and now["id"] == shown["id"]

    await wait_until(is_back)
    answer = await cluster.http.post(
        cluster.frontends[0].url + "/v1/chat/completions", json=chat("count", "m") | {"stream": False}
    )
    assert answer.status_code == 200
    record = await cluster.get(f"/v1/requests/{answer.headers['x-request-id']}")
    assert record["worker"] == f"{shown['id']}~1", "another id in the shard in which its lease has expired"


async def test_no_time_at_all_can_be_allowed(cluster: Cluster) -> None:
    worker = await cluster.worker("m", "model:generate", blocked_loop_secs=0)
    async with post(cluster.http, cluster.frontends[0].url, chat("block", "m")) as stream:
        error = error_of(await stream.read())
    assert error is not None
    assert error["error_type"] == "worker_lost"
    await wait_until(lambda: "model.py:20 in block" in worker.log.read_text())
    (cluster.directory / "free").touch()


async def test_the_sign_of_life_goes_on_as_long_as_the_heartbeats(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    monkeypatch.setenv("LIFECYCLE_ALIVE_FILE", str(alive))
    worker = await cluster.worker("m", "model:generate", blocked_loop_secs=2.0)
    async with post(cluster.http, cluster.frontends[0].url, chat("block", "m")) as stream:
        await wait_until((tmp_path / "blocked").exists)
        for _ in range(3):
            os.utime(alive, (1e9, 1e9))
            await wait_until(lambda: alive.stat().st_mtime > 1e9)
        await wait_until(lambda: "heartbeats stop" in worker.log.read_text())
        os.utime(alive, (1e9, 1e9))
        error = error_of(await stream.read())  # ends one lease later
    assert error is not None
    assert alive.stat().st_mtime == 1e9
    (tmp_path / "free").touch()
    await wait_until(lambda: alive.stat().st_mtime > 1e9)


async def test_loading_may_block_for_as_long_as_it_takes(cluster: Cluster) -> None:
    process = await cluster._start("worker", ["--model", "m", "--engine", "model:loading"], {"blocked_loop_secs": 0.5})
    cluster.workers.append(process)

    async def starts() -> bool:
        return (await replica(cluster, process) or {}).get("state") == "starting"

    await wait_until(starts, timeout=20)
    await outlives(cluster, process)
    (cluster.directory / "free").touch()

    async def serves() -> bool:
        return (await replica(cluster, process) or {}).get("state") == "ready"

    await wait_until(serves)
