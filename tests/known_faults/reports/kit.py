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
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
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
_TCP_TABLE = Path("/proc/net/tcp")
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


class Connection:
    """A TCP client that keeps everything it has received in `received`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = b""
        self.closed = False  # by the server

    async def send(self, data: bytes) -> None:
        """Write, and wait until the kernel has room for more. Raises OSError when the server has closed."""
        self._writer.write(data)
        await self._writer.drain()

    async def taken(self) -> None:
        """Wait until the server has read all that was sent, so that what is sent next is a segment of its own."""
        local, remote = (self._writer.get_extra_info(name)[1] for name in ("sockname", "peername"))
        await wait_until(lambda: _unread_bytes(remote, local) == 0, what="a server that reads what was sent")

    async def read_until(self, marker: bytes, count: int = 1, within_secs: float = 3.0) -> bytes:
        """Read until `marker` came `count` times. Fail with what came instead when it does not."""
        if not await self._read(lambda: self.received.count(marker) >= count, within_secs):
            state = "the server closed" if self.closed else f"nothing more came within {within_secs:g} s"
            raise AssertionError(f"no {marker!r} ({count} times); {state}; received: {self.received[:400]!r}")
        return self.received

    async def read_to_end(self, within_secs: float = 5.0) -> bytes:
        """Read until the server closes. Fail with what came when it does not."""
        if not await self._read(lambda: False, within_secs) and not self.closed:
            raise AssertionError(f"still open after {within_secs:g} s; received: {self.received[:400]!r}")
        return self.received

    async def _read(self, enough: Callable[[], bool], within_secs: float) -> bool:
        give_up_at = time.monotonic() + within_secs
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                while not enough() and not self.closed:
                    try:
                        more = await self._reader.read(65_536)
                    except ConnectionError:
                        more = b""
                    self.received += more
                    self.closed = not more
        except TimeoutError:
            return False
        return enough()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # the server has reset it; it is closed all the same


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Connect to a port of this machine."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield connection
    finally:
        await connection.close()


def _unread_bytes(local_port: int, remote_port: int) -> int:
    """Return how much has arrived at a socket that its process has not read; 0 where there is no such table."""
    if not _TCP_TABLE.exists():
        return 0
    for line in _TCP_TABLE.read_text().splitlines()[1:]:
        fields = line.split()
        ports = tuple(int(address.split(":")[1], 16) for address in fields[1:3])
        if ports == (local_port, remote_port):
            return int(re.split(":", fields[4])[1], 16)
    return 0
