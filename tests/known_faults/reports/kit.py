"""Help for the tests of this folder: processes with an environment of their own, and bytes on a socket.

await site.worker("mine", "echo")                        waits until it serves; a `tests.cluster.Cluster` otherwise
process = await site.launch("worker", "--model", "mine", "--engine", "echo", env={"NO_PROXY": "::1"})   does not wait
await ended(process)                                     its exit code; `process.log.read_text()` is what it said
await run_lifecycle("keys", "new", "--name", "acme")     one command that ends by itself
async with connected(port) as connection: ...            a client that writes and reads bytes
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from tests.cluster import ROOT, START_SECS, Cluster, Process
from tests.keys import Keys
from tests.waiting import wait_until

T = TypeVar("T")
WAIT_SECS = 10.0
MODULE_COMMAND = (sys.executable, "-m", "lifecycle.cli.main")


def chat(model: str, text: str = "hello world", **fields: Any) -> dict[str, Any]:
    """Return the body of a unary chat completion, or of a stream with `stream=True`."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


@dataclass
class Site(Cluster):
    """The folder's shared replicas as one test sees them; what the test starts itself ends with the test."""

    keys: Keys | None = None  # those of the frontend `keyed`

    @property
    def url(self) -> str:
        """The URL of the shared frontend, without a slash at its end."""
        return self.frontends[0].url

    @property
    def port(self) -> int:
        return port_of(self.frontends[0])

    @property
    def keyed(self) -> str:
        """The URL of the shared frontend that asks for keys."""
        return self.frontends[1].url

    def bearer(self, name: str) -> dict[str, str]:
        """Return the header with the key of `acme`, `globex` (clients) or `ops` (an operator)."""
        assert self.keys is not None
        return self.keys.bearer(name)

    async def another_frontend(self, *, env: Mapping[str, str] | None = None, **overrides: Any) -> Process:
        """Start a frontend as `launch` does, and wait until it is ready."""
        port = free_port()
        process = await self.launch("frontend", "--port", str(port), env=env, **overrides)
        process.url = f"http://127.0.0.1:{port}"
        await wait_until(lambda: self._ready(process), timeout=START_SECS, what="a frontend that is ready")
        return process

    async def ask(
        self, model: str, text: str = "hello world", *, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> httpx2.Response:
        """Return the answer to a chat completion, whatever its status, as the shared frontend gives it."""
        body = chat(model, text, **fields)
        return await self.http.post(self.url + "/v1/chat/completions", json=body, headers=dict(headers or {}))

    async def launch(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **overrides: Any,
    ) -> Process:
        """Start `lifecycle` with these arguments and do not wait for anything.

        It gets the site's settings with `overrides`, then `env`, which wins. `cwd` is the test's directory by default.
        """
        environment = self._environment(Settings(**{**self.settings.model_dump(), **overrides})) | dict(env or {})
        process = await spawn(*argv, log=self._next_log(argv[0]), env=environment, cwd=cwd or self.directory)
        self.workers.append(process)
        return process

    async def lists(self, model: str) -> bool:
        """Return whether the shared frontend lists the model."""
        return any(found["id"] == model for found in (await self.get("/v1/models"))["data"])

    async def serves_or_ends(self, model: str, process: Process) -> bool:
        """Wait for one of the two. Return True when the model is listed, False when the process has ended."""

        async def either() -> bool:
            return process.process.returncode is not None or await self.lists(model)

        await wait_until(either, timeout=START_SECS, what=f"a worker that serves {model} or ends")
        return process.process.returncode is None

    def _next_log(self, name: str) -> Path:
        self.started += 1
        return self.directory / f"{name}-launched-{self.started}.log"


async def spawn(
    *argv: str, log: Path, env: Mapping[str, str], cwd: Path, command: Sequence[str] = MODULE_COMMAND
) -> Process:
    """Start `lifecycle` with exactly this environment; its output goes to `log`. The caller ends it."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Process(process, log)


async def ended(process: Process, within_secs: float = WAIT_SECS) -> int:
    """Wait for the end of a process. Return its exit code; fail with its log when it still runs after the time."""
    try:
        async with asyncio.timeout(within_secs):
            return await process.process.wait()
    except TimeoutError:
        raise AssertionError(f"still running after {within_secs:g} s:\n{process.log.read_text()}") from None


async def run_lifecycle(*argv: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command of `lifecycle` that ends by itself. Return what it printed; fail when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lifecycle.cli.main",
        *argv,
        env=clean_environment(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without its settings, with the repository on the module path, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    return kept | {"PYTHONPATH": str(ROOT)} | dict(more or {})


async def within(secs: float, work: Awaitable[T], what: str) -> T:
    """Return the result of an awaitable, or cancel it and fail with `what` when it takes longer than `secs`."""
    try:
        async with asyncio.timeout(secs):
            return await work
    except TimeoutError:
        raise AssertionError(f"{what}: it did not end within {secs:g} s") from None


def port_of(process: Process) -> int:
    """Return the port that a frontend of the cluster listens on."""
    return int(process.url.rsplit(":", 1)[1])
