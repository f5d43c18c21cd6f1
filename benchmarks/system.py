"""What is measured: a system that can be started, found and stopped. One that is compared with it is another class."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import orjson

from benchmarks.caller import Caller, encode
from benchmarks.parking import parked
from benchmarks.stream import MODEL
from lifecycle.embedded import EmbeddedRedis
from lifecycle.model import Role
from lifecycle.server_process import free_port
from lifecycle.settings import as_environment, load
from lifecycle.tether import Tether

ROOT = Path(__file__).parent.parent
ENGINE = "benchmarks.engines:stamped"
_SETTINGS = {"concurrency": 10_000, "queue_limit": 100_000, "drain_timeout_secs": 0.1, "log_level": "warning"}
_START_SECS = 20.0
_STOP_SECS = 10.0
_POLL_SECS = 0.05


@dataclass(frozen=True, slots=True)
class Layout:
    """How many processes of each kind."""

    frontends: int = 1
    workers: int = 1


class System(Protocol):
    """Speaks the OpenAI wire format at each of its urls and runs `benchmarks.engines:stamped` as the model MODEL."""

    name: str
    redis_url: str

    async def start(self, layout: Layout) -> None:
        """Returns once every process is ready."""

    async def stop(self) -> None:
        """Ends every process, also when the start has failed half-way."""

    @property
    def urls(self) -> Sequence[str]:
        """Of each frontend."""

    @property
    def pids(self) -> Mapping[str, Sequence[int]]:
        """By part (`frontend`, `worker`), Redis excepted."""

    def parked(self, count: int) -> AbstractAsyncContextManager[None]:
        """Within the block so many requests are inflight that nobody works on."""


class Lifecycle:
    """This project: its frontends and workers, as its own command line starts them."""

    name = "lifecycle"

    def __init__(self) -> None:
        self._urls: list[str] = []
        self.redis_url = ""
        self._settings = load()
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {"frontend": [], "worker": []}
        self._stack = ExitStack()
        self._log = Path()

    @property
    def urls(self) -> Sequence[str]:
        return self._urls

    @property
    def pids(self) -> Mapping[str, Sequence[int]]:
        return {part: [process.pid for process in processes] for part, processes in self._processes.items()}

    async def start(self, layout: Layout) -> None:
        directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="benchmark-")))
        self._log = directory / "replicas.log"
        self.redis_url = self._stack.enter_context(EmbeddedRedis()).url
        self._settings = load({"redis_url": self.redis_url, **_SETTINGS})
        ports = [free_port() for _ in range(layout.frontends)]
        self._urls = [f"http://127.0.0.1:{port}" for port in ports]
        for port in ports:
            self._launch("frontend", "--port", str(port))
        for _ in range(layout.workers):
            self._launch("worker", "--model", MODEL, "--engine", ENGINE)
        async with asyncio.timeout(_START_SECS):
            await asyncio.gather(*(self._wait_ready(url, layout) for url in self.urls))

    async def stop(self) -> None:
        running = [process for processes in self._processes.values() for process in processes]
        for process in running:
            process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(asyncio.to_thread(_wait_or_kill, process) for process in running))
        said = self._log.read_text() if self._log.is_file() else ""
        if said:
            print(said, file=sys.stderr, flush=True)
        self._processes = {part: [] for part in self._processes}
        self._stack.close()

    def parked(self, count: int) -> AbstractAsyncContextManager[None]:
        return parked(self._settings, count)

    def _launch(self, role: str, *argv: str) -> None:
        tether = Tether()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                tether.command([sys.executable, "-m", "lifecycle.cli.main", role, *argv]),
                env=as_environment(self._settings) | {"PYTHONPATH": str(ROOT)},
                stdin=tether.stdin, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        tether.handed_over()
        self._stack.callback(tether.close)
        self._processes[role].append(process)

    async def _wait_ready(self, url: str, layout: Layout) -> None:
        while True:
            if await self._is_ready(url, layout):
                return
            await asyncio.sleep(_POLL_SECS)

    async def _is_ready(self, url: str, layout: Layout) -> bool:
        """It answers, and shows all workers."""
        for processes in self._processes.values():
            if any(process.poll() is not None for process in processes):
                raise RuntimeError("a replica ended at its start")
        try:
            caller = await Caller.connect(url)
        except OSError:
            return False
        try:
            if (await caller.call(encode("GET", "/ready"))).status != 200:
                return False
            shown = orjson.loads((await caller.call(encode("GET", "/v1/replicas"))).body)["data"]
            return len([replica for replica in shown if replica["role"] == Role.WORKER]) == layout.workers
        finally:
            caller.close()


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


SYSTEMS: Mapping[str, Callable[[], System]] = {Lifecycle.name: Lifecycle}


@asynccontextmanager
async def running(system: System, layout: Layout) -> AsyncIterator[System]:
    try:
        await system.start(layout)
        yield system
    finally:
        await system.stop()
