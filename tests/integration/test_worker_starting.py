"""A worker whose engine takes long to load, fails to start, or is told to end meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings
from tests.sse import chat
from tests.waiting import wait_until

LEASES = 3  # that pass while the engine loads
SERVES = """
async def generate(request, context):
    yield "mine"
"""
WAITS = """
import asyncio, time
from pathlib import Path

class Waiting:
    def __init__(self, block):
        self.block = block

    async def startup(self):
        note("startup")
        while not Path("loaded").exists():
            if self.block:
                time.sleep(0.01)
            else:
                await asyncio.sleep(0.01)

    async def aclose(self):
        note("aclose")

    async def __call__(self, request, context):
        yield "mine"

def note(word):
    with open("journal", "a") as file:
        print(word, file=file)

awaiting = Waiting(False)
blocking = Waiting(True)
"""
IMPORTS = (
    """
import time
from pathlib import Path

while not Path("loaded").exists():
    time.sleep(0.01)
"""
    + SERVES
)


@pytest.fixture
async def cluster(settings: Settings, tmp_path: Path) -> AsyncIterator[Cluster]:
    """One frontend."""
    async with running(settings, tmp_path, workers=0) as cluster:
        yield cluster


async def launch(cluster: Cluster, engine: str, code: str) -> Process:
    """Start a worker of the model `m` and do not wait for it."""
    (cluster.directory / "model.py").write_text(textwrap.dedent(code))
    process = await cluster._start("worker", ["--model", "m", "--engine", engine], {})
    cluster.workers.append(process)
    return process


async def replica(cluster: Cluster, process: Process) -> dict[str, Any] | None:
    """Return what the cluster shows of this worker now."""
    assert process.process.returncode is None, process.log.read_text()
    found = (await cluster.get("/v1/replicas"))["data"]
    return next((shown for shown in found if shown["pid"] == process.pid), None)


async def is_in_state(cluster: Cluster, process: Process, state: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        shown = await replica(cluster, process)
        return shown if shown and shown["state"] == state else None

    return await wait_until(reached, timeout=20, what=f"a worker that is {state}")


async def outlives(cluster: Cluster, process: Process, since: float, id_: str) -> None:
    """Wait until leases have passed, during which the worker keeps its id and its state."""

    async def passed() -> bool:
        shown = await replica(cluster, process)
        assert shown is not None, "the worker has lost its lease"
        assert (shown["id"], shown["state"]) == (id_, "starting")
        return asyncio.get_running_loop().time() - since > LEASES * cluster.settings.lease_secs

    await wait_until(passed, timeout=30, what=f"{LEASES} leases")


async def ask(cluster: Cluster) -> httpx2.Response:
    url = cluster.frontends[0].url + "/v1/chat/completions"
    return await cluster.http.post(url, json=chat("hello", "m") | {"stream": False})


@pytest.mark.parametrize(
    ("engine", "code"),
    [
        pytest.param("model:generate", IMPORTS, id="import"),
        pytest.param("model.py:awaiting", WAITS, id="startup"),
        pytest.param("model.py:blocking", WAITS, id="startup that blocks"),
    ],
)
async def test_loads_for_several_leases(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, engine: str, code: str
) -> None:
    alive = cluster.directory / "alive"
    monkeypatch.setenv("LIFECYCLE_ALIVE_FILE", str(alive))
    began_at = asyncio.get_running_loop().time()
    process = await launch(cluster, engine, code)
    shown = await is_in_state(cluster, process, "starting")
    await outlives(cluster, process, began_at, shown["id"])
    assert (await cluster.get("/v1/models"))["data"] == []
    refused = await ask(cluster)
    assert (refused.status_code, refused.headers["retry-after"].isdigit()) == (503, True)
    os.utime(alive, (1e9, 1e9))
    await wait_until(lambda: alive.stat().st_mtime > 1e9, timeout=5)
    (cluster.directory / "loaded").touch()
    assert (await is_in_state(cluster, process, "ready"))["id"] == shown["id"]
    answer = await ask(cluster)
    assert answer.json()["choices"][0]["message"]["content"] == "mine"


async def test_a_call_with_tools_is_not_refused_for_good_while_its_worker_loads(cluster: Cluster) -> None:
    process = await launch(cluster, "model:awaiting", WAITS)
    await is_in_state(cluster, process, "starting")
    body = chat("hello", "m") | {"stream": False, "tools": [{"type": "function", "function": {"name": "f"}}]}
    answer = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", json=body)
    assert answer.status_code == 503


async def test_a_queued_request_waits_for_a_worker_that_loads(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(max_attempts=2)
    async with running(settings, tmp_path, workers=0) as cluster:
        (tmp_path / "busy.py").write_text(
            "async def generate(request, context):\n    await context.killed()\n    yield ''\n"
        )
        busy = await cluster.worker("m", "busy:generate", concurrency=1)
        asking = asyncio.create_task(ask(cluster))
        try:

            async def runs() -> bool:
                return bool((await cluster.get("/v1/requests?status=running"))["data"])

            await wait_until(runs)
            began_at = asyncio.get_running_loop().time()
            process = await launch(cluster, "model:awaiting", WAITS)
            shown = await is_in_state(cluster, process, "starting")
            await busy.kill()
            await outlives(cluster, process, began_at, shown["id"])
            (tmp_path / "loaded").touch()
            assert (await asking).json()["choices"][0]["message"]["content"] == "mine"
        finally:
            asking.cancel()


@pytest.mark.parametrize(
    ("engine", "code", "exit_code", "hint"),
    [
        pytest.param(
            "model:generate",
            "async def startup():\n    raise RuntimeError('no GPU')\n" + SERVES + "\ngenerate.startup = startup\n",
            1,
            "the engine's startup() failed: RuntimeError at",
            id="startup raises",
        ),
        pytest.param(
            "model:generate",
            "async def startup():\n    raise SystemExit(0)\n" + SERVES + "\ngenerate.startup = startup\n",
            1,
            "the engine's startup() failed: SystemExit at",
            id="startup exits",
        ),
        pytest.param(
            "model:generate",
            "import asyncio\nasync def startup():\n    raise asyncio.CancelledError\n"
            + SERVES
            + "\ngenerate.startup = startup\n",
            1,
            "the engine's startup() failed: it raised CancelledError by itself",
            id="startup cancels itself",
        ),
        pytest.param(
            "model:engine",
            "class Engine:\n    @property\n    def health(self):\n        raise OSError('no disk')\n"
            "    async def __call__(self, request, context):\n        yield ''\nengine = Engine()\n",
            2,
            "the engine cannot be loaded: OSError at",
            id="declaration raises",
        ),
        pytest.param("model:generate", "raise RuntimeError('no GPU')", 2, "RuntimeError: no GPU", id="import raises"),
        pytest.param(
            "model:generate", SERVES + "\ngenerate.concurrency = 0\n", 2, "concurrency is 0;", id="wrong declaration"
        ),
    ],
)
async def test_an_engine_that_does_not_start_ends_the_worker_at_once(
    make_settings: MakeSettings, tmp_path: Path, engine: str, code: str, exit_code: int, hint: str
) -> None:
    settings = make_settings(lease_secs=30.0)
    async with running(settings, tmp_path, workers=0) as cluster:
        process = await launch(cluster, engine, code)
        async with asyncio.timeout(20):
            assert await process.process.wait() == exit_code
        said = [line for line in process.log.read_text().splitlines() if line.startswith("lifecycle: ")]
        assert len(said) == 1
        assert hint in said[0]
        assert all(shown["pid"] != process.pid for shown in (await cluster.get("/v1/replicas"))["data"])


async def test_a_failed_startup_is_followed_by_aclose(cluster: Cluster) -> None:
    code = WAITS + "\nclass Failing(Waiting):\n    async def startup(self):\n        raise OSError('no disk')\n"
    process = await launch(cluster, "model:failing", code + "\nfailing = Failing(False)\n")
    async with asyncio.timeout(20):
        assert await process.process.wait() == 1
    assert (cluster.directory / "journal").read_text().split() == ["aclose"]


@pytest.mark.parametrize(
    ("engine", "code", "journal"),
    [
        pytest.param("model:generate", IMPORTS, [], id="import"),
        pytest.param("model:awaiting", WAITS, ["startup", "aclose"], id="startup"),
        pytest.param("model:blocking", WAITS, ["startup", "aclose"], id="startup that blocks"),
    ],
)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_a_worker_that_loads(
    cluster: Cluster, engine: str, code: str, journal: list[str], signum: signal.Signals
) -> None:
    process = await launch(cluster, engine, code)
    await is_in_state(cluster, process, "starting")
    noted = cluster.directory / "journal"
    if journal:
        await wait_until(noted.exists)
    process.signal(signum)
    async with asyncio.timeout(5):
        assert await process.process.wait() == (130 if signum == signal.SIGINT else 0), process.log.read_text()
    assert (noted.read_text().split() if journal else []) == journal
    assert all(shown["pid"] != process.pid for shown in (await cluster.get("/v1/replicas"))["data"])


@pytest.mark.parametrize(("given", "slots"), [({}, 3), ({"concurrency": 5}, 5)])
async def test_an_engine_declares_its_concurrency(cluster: Cluster, given: dict[str, int], slots: int) -> None:
    (cluster.directory / "model.py").write_text(SERVES + "\ngenerate.concurrency = 3\n")
    process = await cluster.worker("m", "model:generate", **given)
    shown = await replica(cluster, process)
    assert shown is not None
    assert shown["concurrency"] == slots
