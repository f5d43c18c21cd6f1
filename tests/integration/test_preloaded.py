"""A replica that is forked from a process with all imports is what a new interpreter would be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lifecycle.settings import Settings, as_environment
from tests import processes
from tests.cluster import ROOT, START_SECS, running
from tests.preloaded.start import REAL_STARTS, Started, can_fork, start
from tests.waiting import wait_until

ENGINE = """
import os
import sys

async def generate(request, context):
    yield f"{sys.argv[1:]} {os.getcwd()} {os.getsid(0)} {sys.path[:3]} {os.environ['LIFECYCLE_NAMESPACE']} {__file__}"
"""

RUN = """
import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.preloaded.start import start

folder = Path(sys.argv[1])
started = asyncio.run(start(["frontend", "--port", "0"], env=os.environ, cwd=folder, log=folder / "replica.log"))
print(started.pid, flush=True)
signal.pause()
"""

forks = pytest.mark.skipif(not can_fork(os.environ), reason="each replica is a new interpreter here")


async def launched(tmp_path: Path, env: Mapping[str, str], *argv: str) -> tuple[Started, Path]:
    log = tmp_path / "replica.log"
    return await start(argv, env={**env, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path, log=log), log


def is_forked(process: Started) -> bool:
    return processes.children()[process.pid].startswith("lifecycle ")


@forks
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
async def test_it_ends_as_a_signal_says(settings: Settings, tmp_path: Path, signum: signal.Signals, code: int) -> None:
    """And it is among the children of the test run for as long as it runs, so that what is left over is seen."""
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker()
        assert is_forked(worker.process)
        worker.signal(signum)
        assert await worker.process.wait() == worker.process.returncode == code
        assert worker.pid not in processes.children()
        with pytest.raises(ProcessLookupError):
            worker.signal(signum)


@forks
async def test_it_has_its_own_arguments_folder_session_and_modules(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "my_engine.py").write_text(ENGINE)
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("mine", "my_engine:generate")
        body = {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}
        answer = (await cluster.http.post(f"{cluster.frontends[0].url}/v1/chat/completions", json=body)).json()
        arguments = ["worker", "--model", "mine", "--engine", "my_engine:generate"]
        path = [str(tmp_path), str(ROOT), str(tmp_path)]
        file = tmp_path / "my_engine.py"
        said = answer["choices"][0]["message"]["content"]
        assert said == f"{arguments} {tmp_path} {worker.pid} {path} {settings.namespace} {file}"


@forks
async def test_a_wrong_argument_is_told_in_its_log(settings: Settings, tmp_path: Path) -> None:
    process, log = await launched(tmp_path, as_environment(settings), "worker", "--no-such-flag")
    assert await process.wait() == 2
    assert "--no-such-flag" in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's signal at the end of a parent")
@pytest.mark.parametrize("changed", [{}, {REAL_STARTS: "1"}], ids=["forked", "a new interpreter"])
async def test_it_ends_with_a_test_run_that_is_killed(
    settings: Settings, tmp_path: Path, changed: dict[str, str]
) -> None:
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN, str(tmp_path)),
        env=as_environment(settings) | changed,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert run.stdout is not None
        pid = int(await run.stdout.readline())
        assert not processes.gone(pid)
    finally:
        run.kill()
        await run.wait()
    try:
        await wait_until(lambda: processes.gone(pid), what="the end of the replica")
    finally:
        processes.end([pid])


@pytest.mark.parametrize("name", ["OTEL_SERVICE_NAME", "LC_ALL", REAL_STARTS])
async def test_what_libraries_read_early_needs_a_new_interpreter(settings: Settings, tmp_path: Path, name: str) -> None:
    environment = as_environment(settings) | {name: "C"}
    process, log = await launched(tmp_path, environment, "frontend", "--port", "0")
    try:
        assert not is_forked(process)
        await wait_until(lambda: "0.0.1:" in log.read_text(), timeout=START_SECS, what="a frontend that listens")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0, log.read_text()


@forks
async def test_replicas_that_start_together_have_one_parent(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, frontends=2, workers=2) as cluster:
        parents = {Path(f"/proc/{p.pid}/stat").read_text().split()[3] for p in (*cluster.frontends, *cluster.workers)}
        assert len(parents) == 1
