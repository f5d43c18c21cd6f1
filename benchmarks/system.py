"""Start and stop a measured system. Each system that is compared is a class of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from benchmarks.caller import Caller, encode
from benchmarks.parking import parked
from benchmarks.stream import MODEL, completion
from lifecycle.local.die_with_parent import ParentDeathPipe
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings, as_environment, load
from lifecycle.types import Role

ROOT = Path(__file__).parent.parent
ENGINE = "benchmarks.engines:stamped"
_SETTINGS = {
    "concurrency": 10_000,
    "queue_limit": 1_000_000,
    "queue_without_workers": True,  # or what is parked would fail
    "drain_timeout_secs": 0.1,
    "log_level": "warning",
}
_COMMAND = "lifecycle.cli.main"
_SHOWN_CHARACTERS = 4_000
_START_SECS = 20.0
_STOP_SECS = 10.0
_POLL_SECS = 0.05


@dataclass(frozen=True, slots=True)
class Layout:
    """The number of processes of each kind."""

    frontends: int = 1
    workers: int = 1


class System(ABC):
    """Speaks the OpenAI wire format at each of its urls and runs `benchmarks.engines:stamped` as the model MODEL.

    Each has a Redis server of its own, the same one under the same settings for all of them.
    """

    name: str

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._redis = EmbeddedRedis()
        self._urls: list[str] = []
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {"frontend": [], "worker": []}
        self._log = Path()

    @property
    def redis_url(self) -> str:
        return self._redis.url

    @property
    def redis_server(self) -> str:
        return self._redis.server

    @property
    def urls(self) -> Sequence[str]:
        """The URL of each frontend."""
        return self._urls

    @property
    def pids(self) -> Mapping[str, Sequence[int]]:
        """The process ids by part (`frontend`, `worker`), without Redis."""
        return {part: [process.pid for process in processes] for part, processes in self._processes.items()}

    async def start(self, layout: Layout) -> None:
        """Start all processes, and return once each of them is ready."""
        self._log = Path(self._stack.enter_context(TemporaryDirectory(prefix="benchmark-"))) / "log"
        self._stack.enter_context(self._redis)
        for _ in range(layout.workers if self._worker() else 0):
            self._launch("worker", self._worker())
        for _ in range(layout.frontends):
            port = free_port()
            self._urls.append(f"http://127.0.0.1:{port}")
            self._launch("frontend", self._frontend(port))
        async with asyncio.timeout(_START_SECS):
            await asyncio.gather(*(self._wait_ready(url, layout) for url in self.urls))

    async def stop(self) -> None:
        """End all processes, including those of an incomplete start."""
        said = self._log.read_text() if self._log.is_file() else ""
        if said:  # what it says about its own end is not of interest
            print(said[:_SHOWN_CHARACTERS], file=sys.stderr, flush=True)
        running = [process for processes in self._processes.values() for process in processes]
        for process in running:
            process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(asyncio.to_thread(_wait_or_kill, process) for process in running))
        self._stack.close()

    @abstractmethod
    def _frontend(self, port: int) -> list[str]:
        """Return the arguments to Python that start a frontend."""

    @abstractmethod
    def _worker(self) -> list[str]:
        """Return the arguments to Python that start a worker; none when the frontend runs the engine itself."""

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    @abstractmethod
    async def _is_ready(self, caller: Caller, layout: Layout) -> bool:
        """Return whether the frontend answers and knows all workers."""

    def _launch(self, part: str, argv: list[str]) -> None:
        pipe = ParentDeathPipe()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                pipe.command([sys.executable, *argv]),
                env=self._environment() | {"PYTHONPATH": str(ROOT)},
                stdin=pipe.stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pipe.handed_over()
        self._stack.callback(pipe.close)
        self._processes[part].append(process)

    async def _wait_ready(self, url: str, layout: Layout) -> None:
        while True:
            for process in itertools.chain(*self._processes.values()):
                if process.poll() is not None:
                    raise RuntimeError("a process ended at its start")
            try:
                caller = await Caller.connect(url)
            except OSError:
                await asyncio.sleep(_POLL_SECS)
                continue
            try:
                if await self._is_ready(caller, layout):
                    return
            finally:
                caller.close()
            await asyncio.sleep(_POLL_SECS)


class Lifecycle(System):
    """This project: its frontends and workers, as its own command line starts them."""

    name = "lifecycle"

    def parked(self, count: int) -> AbstractAsyncContextManager[None]:
        """Within the block so many requests are inflight that nobody works on."""
        return parked(self._settings, count)

    @property
    def _settings(self) -> Settings:
        return load({"redis_url": self.redis_url, **_SETTINGS})

    def _environment(self) -> dict[str, str]:
        return as_environment(self._settings)

    def _frontend(self, port: int) -> list[str]:
        return ["-m", _COMMAND, "frontend", "--port", str(port)]

    def _worker(self) -> list[str]:
        return ["-m", _COMMAND, "worker", "--model", MODEL, "--engine", ENGINE]

    async def _is_ready(self, caller: Caller, layout: Layout) -> bool:
        if (await caller.call(encode("GET", "/ready"))).status != 200:
            return False
        shown = orjson.loads((await caller.call(encode("GET", "/v1/replicas"))).body)["data"]
        return len([replica for replica in shown if replica["role"] == Role.WORKER]) == layout.workers


class Naive(System):
    """See `benchmarks/naive/`."""

    name = "naive"

    def _frontend(self, port: int) -> list[str]:
        return ["-m", "benchmarks.naive.frontend", self.redis_url, str(port)]

    def _worker(self) -> list[str]:
        return ["-m", "benchmarks.naive.worker", self.redis_url]

    async def _is_ready(self, caller: Caller, layout: Layout) -> bool:
        """It shows no workers: they are there once they have answered."""
        answers = [await caller.call(completion("unpaced 1", stream=False)) for _ in range(layout.workers)]
        return all(answer.status == 200 for answer in answers)


class Bare(System):
    """See `benchmarks/bare.py`. It has neither workers nor anything to ask Redis."""

    name = "bare"

    def _frontend(self, port: int) -> list[str]:
        return ["-m", "benchmarks.bare", str(port)]

    def _worker(self) -> list[str]:
        return []

    async def _is_ready(self, caller: Caller, layout: Layout) -> bool:
        return (await caller.call(completion("unpaced 1"))).status == 200


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


SYSTEMS: Mapping[str, type[System]] = {system.name: system for system in (Lifecycle, Naive, Bare)}
COMPARED = (Lifecycle.name, Naive.name)  # those that are measured unless others are named


@asynccontextmanager
async def running(system: System, layout: Layout) -> AsyncIterator[System]:
    try:
        await system.start(layout)
        yield system
    finally:
        await system.stop()
