"""The package installs modules called `frontend` and `worker`, and users have files of these names too.

Today a user's own `worker.py` is not found, or, with `PYTHONPATH=.` as the error message itself advises, takes the
place of the product's. Expected: an engine is looked for in the current directory first, and the product finds its own.
Source: saga-project/BigJob#153, williexu/random_username#4, telekom/mltb2#62.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from lifecycle.settings import as_environment
from tests.cluster import START_SECS, Process
from tests.known_faults.reports.kit import Site, clean_environment, spawn
from tests.waiting import wait_until

ENGINE = 'async def generate(request, context):\n    yield "mine"\n'
SCRIPT = Path(sys.executable).with_name("lifecycle")
HERE = {"PYTHONPATH": "."}
SHADOWED = pytest.mark.xfail(
    strict=True, reason="27: a user's worker.py takes the place of the product's, or is not found"
)


async def launch(site: Site, directory: Path, env: Mapping[str, str], *argv: str) -> Process:
    """Start the installed script `lifecycle` (`python -m` would put the current directory on the module path)."""
    environment = clean_environment(as_environment(site.settings))
    del environment["PYTHONPATH"]
    log = site.directory / f"{argv[0]}.log"
    process = await spawn(*argv, log=log, env=environment | dict(env), cwd=directory, command=(str(SCRIPT),))
    site.workers.append(process)
    return process


@pytest.mark.parametrize(
    ("engine", "env", "text"),
    [
        pytest.param("worker:generate", {}, "mine", id="the user's engine", marks=SHADOWED),
        pytest.param("worker:generate", HERE, "mine", id="the user's engine, PYTHONPATH=.", marks=SHADOWED),
        pytest.param("echo", HERE, "hello world", id="echo, PYTHONPATH=.", marks=SHADOWED),
    ],
)
async def test_a_worker_beside_a_file_worker(
    site: Site, model: str, tmp_path: Path, engine: str, env: dict[str, str], text: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "worker.py").write_text(ENGINE)
    process = await launch(site, project, env, "worker", "--model", model, "--engine", engine)
    assert await site.serves_or_ends(model, process), process.log.read_text()
    assert text in (await site.ask(model)).text


@pytest.mark.xfail(strict=True, reason="27: a user's package `frontend` takes the place of the product's")
async def test_a_frontend_beside_a_package_frontend(site: Site, tmp_path: Path) -> None:
    package = tmp_path / "project" / "frontend"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    port = free_port()
    process = await launch(site, package.parent, HERE, "frontend", "--port", str(port))

    async def ready_or_ended() -> bool:
        try:
            ready = (await site.http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
        except httpx2.TransportError:
            ready = False
        return ready or process.process.returncode is not None

    await wait_until(ready_or_ended, timeout=START_SECS, what="a frontend that is ready or ends")
    assert process.process.returncode is None, process.log.read_text()
