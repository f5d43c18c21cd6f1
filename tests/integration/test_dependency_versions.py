"""The project works with the lowest and with the newest versions of its dependencies that pyproject.toml allows.

Each test installs the wheel into an environment of its own, starts `lifecycle up` there, reads one stream to its end
and cancels another. Both need a package index.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lifecycle.local.redis_process import free_port
from tests.cluster import ROOT
from tests.sse import Stream, text_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRA = "otel"
INSTALL_SECS = 180.0
START_SECS = 30.0
STOP_SECS = 20.0


def requirements() -> list[Requirement]:
    """Return what the project itself and its extra for traces need on this machine."""
    found = map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][EXTRA]])
    return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate()]


def floor(requirement: Requirement) -> str:
    [lowest] = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    return lowest


def pip(*arguments: str | Path, timeout_secs: float = INSTALL_SECS) -> subprocess.CompletedProcess[str]:
    """Run pip without constraints, which would fix the versions."""
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    return subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_secs,
        check=False,
    )


def must(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the project's wheel. Skips the test when no package index can be reached."""
    directory = tmp_path_factory.mktemp("wheel")
    [tool] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    options = ("-q", "--no-deps", "--no-cache-dir", "--retries=1", "--timeout=10")
    probe = pip("download", *options, "-d", directory / "probe", tool)
    said = (probe.stderr or probe.stdout).strip()
    if probe.returncode != 0 or "connection broken" in said:  # the latter where another source has the package too
        pytest.skip(f"the package index cannot be reached: {said.splitlines()[-1] if said else 'pip says nothing'}")
    must(pip("wheel", "-q", "--no-deps", "-w", directory, ROOT))
    [built] = directory.glob("*.whl")
    return built


def install(directory: Path, wheel: Path, pins: list[str]) -> dict[str, Version]:
    """Make an environment with the wheel in it. Returns the installed version of each package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True, timeout=60)
    must(pip("--python", directory, "install", "-q", "--no-compile", f"{wheel}[{EXTRA}]", *pins))
    frozen = must(pip("--python", directory, "freeze"))
    pairs = re.findall(r"^([\w.-]+)==(\S+)$", frozen, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@asynccontextmanager
async def up(environment: Path, directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `lifecycle up` with one frontend and one worker, away from the sources. Yields it and the frontend's URL."""
    port, log = free_port(), directory / "up.log"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LIFECYCLE_", "PYTHON"))}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            environment / "bin" / "lifecycle",
            "up",
            "--port",
            str(port),
            "--frontends",
            "1",
            "--workers",
            "1",
            "--drain-timeout-secs",
            "1",
            cwd=directory,
            env=clean,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient(trust_env=False) as http:

            async def ready() -> bool:
                assert process.returncode is None, log.read_text()
                try:
                    return (await http.get(f"{url}/ready")).status_code == 200
                except httpx2.HTTPError:
                    return False

            await wait_until(ready, START_SECS, "a frontend that is ready")
        yield process, url
        assert "Traceback" not in log.read_text()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), STOP_SECS)


def refuses_a_wrong_option(environment: Path) -> None:
    """The command line says in its own words what is wrong; that depends on how typer reports errors."""
    command = [str(environment / "bin" / "lifecycle"), "frontend", "--nonsense"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=START_SECS, check=False)
    assert run.returncode == 2, run.stderr
    assert "--nonsense" in run.stderr
    assert "Traceback" not in run.stderr


async def use(url: str) -> None:
    """Read one stream to its end, and cancel another one while it runs."""
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "one two three"}]}
    async with httpx2.AsyncClient(base_url=url, timeout=START_SECS, trust_env=False) as http:
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            events = await Stream(response).read()
        assert text_of(events).split() == ["one", "two", "three"]
        assert events[-1].data == "[DONE]"

        headers, endless = {"X-Request-Id": "cancelled"}, body | {"echo_repeat": 100_000}
        async with http.stream("POST", "/v1/chat/completions", json=endless, headers=headers) as response:
            stream = Stream(response)
            await stream.read_tokens(1)
            answer = await http.post("/v1/requests/cancelled/cancel", params={"wait_ms": 10_000})
            assert answer.status_code == 200, answer.text
            events = await stream.read()
        assert events[-1].data == "[DONE]"
        assert answer.json()["status"] == "cancelled"


@pytest.mark.parametrize("versions", ["lowest", "newest"])
async def test_streams_and_cancels_with_these_versions(wheel: Path, versions: str, tmp_path: Path) -> None:
    lowest = [f"{requirement.name}=={floor(requirement)}" for requirement in requirements()]
    pins = lowest if versions == "lowest" else []
    installed = await asyncio.to_thread(install, tmp_path / "environment", wheel, pins)
    for requirement in requirements():
        version = installed[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement.name} {version}"
        assert not pins or version == Version(floor(requirement)), f"{requirement.name} {version}"
    refuses_a_wrong_option(tmp_path / "environment")
    async with up(tmp_path / "environment", tmp_path) as (process, url):
        await use(url)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), STOP_SECS) == 130


def test_the_wheel_has_everything_that_is_not_python(wheel: Path) -> None:
    """The licence, the Lua scripts and the dashboard; an editable installation would hide a missing one."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tracked = [path for package in ("lifecycle", "frontend", "worker") for path in (ROOT / package).rglob("*")]
    data = {
        str(path.relative_to(ROOT))
        for path in tracked
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    assert {Path(name).suffix for name in data} >= {".lua", ".js", ".css", ".html"}
    assert data <= set(names)
    for licence in PROJECT["license-files"]:
        assert [name for name in names if name.endswith(f".dist-info/licenses/{licence}")], licence
