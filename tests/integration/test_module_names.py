"""A user's project may have modules called `worker` and `frontend`, as this product does."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings, as_environment
from tests.cluster import START_SECS, Cluster, Process, running
from tests.waiting import wait_until

ENGINE = 'async def generate(request, context):\n    yield "mine"\n'
SCRIPT = Path(sys.executable).with_name("lifecycle")
HERE = {"PYTHONPATH": "."}


async def launch(cluster: Cluster, directory: Path, env: dict[str, str], *argv: str) -> Process:
    """Start the installed script: `python -m` would put the current directory on the module path."""
    environment = as_environment(cluster.settings)
    environment.pop("PYTHONPATH", None)
    log = cluster.directory / f"{argv[0]}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            os.fspath(SCRIPT), *argv, env=environment | env, cwd=directory, stdout=output, stderr=output
        )
    started = Process(process, log)
    cluster.workers.append(started)
    return started


def must_run(process: Process) -> None:
    assert process.process.returncode is None, process.log.read_text()


@pytest.mark.parametrize(
    ("engine", "env", "text"),
    [
        pytest.param("worker:generate", {}, "mine", id="the user's module"),
        pytest.param("worker:generate", HERE, "mine", id="the user's module, PYTHONPATH=."),
        pytest.param("worker.py:generate", {}, "mine", id="the user's file"),
        pytest.param("worker.py:generate", HERE, "mine", id="the user's file, PYTHONPATH=."),
        pytest.param("echo", HERE, "hello", id="echo, PYTHONPATH=."),
    ],
)
async def test_a_worker_beside_a_file_worker(
    settings: Settings, tmp_path: Path, engine: str, env: dict[str, str], text: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "worker.py").write_text(ENGINE)
    async with running(settings, tmp_path, workers=0) as cluster:
        process = await launch(cluster, project, env, "worker", "--model", "m", "--engine", engine)

        async def serves() -> bool:
            must_run(process)
            return bool((await cluster.get("/v1/models"))["data"])

        await wait_until(serves, timeout=START_SECS, what="a worker that serves")
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        answer = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", json=body)
        assert text in answer.text


async def test_a_frontend_beside_a_package_frontend(settings: Settings, tmp_path: Path) -> None:
    package = tmp_path / "project" / "frontend"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    port = free_port()
    async with running(settings, tmp_path, frontends=0, workers=0) as cluster:
        process = await launch(cluster, package.parent, HERE, "frontend", "--port", str(port))

        async def ready() -> bool:
            must_run(process)
            try:
                return (await cluster.http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
            except httpx2.TransportError:
                return False

        await wait_until(ready, timeout=START_SECS, what="a frontend that is ready")
