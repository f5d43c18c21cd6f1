"""A cluster for a test: real frontends and workers as processes. `tests/preloaded` says how they are started."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings, as_environment
from tests.preloaded.start import Started, start
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
START_SECS = 20.0
WEAKENED = "CHAOS_WEAKENED"  # a folder whose sitecustomize.py takes something away from the processes


@dataclass(eq=False)
class Process:
    """One replica. `url` is a frontend's."""

    process: Started
    log: Path
    url: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)

    async def kill(self) -> None:
        """SIGKILL: nothing is cleaned up by the process itself."""
        self.signal(signal.SIGKILL)
        await self.process.wait()

    async def terminate(self, timeout_secs: float = 15.0) -> int:
        if self.process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        async with asyncio.timeout(timeout_secs):
            return await self.process.wait()


@dataclass
class Cluster:
    settings: Settings
    directory: Path
    http: httpx2.AsyncClient
    frontends: list[Process] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    started: int = 0  # numbers the logs

    async def frontend(self, **overrides: Any) -> Process:
        """Start one and wait until it is ready."""
        return await self.frontend_at(f"http://127.0.0.1:{free_port()}", **overrides)

    async def frontend_at(self, url: str, **overrides: Any) -> Process:
        """Start one at this URL, such as that of one that has ended, and wait until it is ready."""
        process = await self._start("frontend", ["--port", url.rpartition(":")[2]], overrides)
        process.url = url
        self.frontends.append(process)
        await wait_until(lambda: self._ready(process), timeout=START_SECS)
        return process

    async def worker(self, model: str | Sequence[str] = "echo", engine: str = "echo", **overrides: Any) -> Process:
        """Start one, for one model, several or none, and wait until its engine has started."""
        models = [model] if isinstance(model, str) else model
        flags = [text for name in models for text in ("--model", name)]
        process = await self._start("worker", [*flags, "--engine", engine], overrides)
        self.workers.append(process)
        await wait_until(lambda: self._joined(process), timeout=START_SECS)
        return process

    async def get(self, path: str, frontend: Process | None = None) -> Any:
        """JSON of a GET that must succeed, from the first frontend unless another is named."""
        answer = await self.http.get((frontend or self.frontends[0]).url + path)
        answer.raise_for_status()
        return answer.json()

    async def record(self, rid: str, frontend: Process | None = None) -> dict[str, Any]:
        found: dict[str, Any] = await self.get(f"/v1/requests/{rid}", frontend)
        return found

    async def inflight(self, frontend: Process | None = None) -> int:
        return int((await self.get("/v1/inflight", frontend))["total"])

    async def metric(self, name: str, frontend: Process | None = None, **labels: str) -> float:
        """Sum of a metric's samples that carry these labels; 0 when there are none."""
        text = (await self.http.get((frontend or self.frontends[0]).url + "/metrics")).text
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.split("{")[0].split(" ")[0] == name and all(w in line for w in wanted)
        )

    async def _start(self, role: str, argv: list[str], overrides: dict[str, Any]) -> Process:
        settings = Settings(**{**self.settings.model_dump(exclude_unset=True), **overrides})
        log = self.directory / f"{role}-{self.started}.log"
        self.started += 1
        process = await start(
            [role, *argv],
            env=self._environment(settings),
            cwd=self.directory,
            log=log,
            new_interpreter=WEAKENED in os.environ,  # only a new one reads sitecustomize.py
        )
        return Process(process, log)

    def _environment(self, settings: Settings) -> dict[str, str]:
        path = [*filter(None, [os.environ.get(WEAKENED)]), str(ROOT), str(self.directory)]
        return as_environment(settings) | {"PYTHONPATH": os.pathsep.join(path)}

    async def _ready(self, process: Process) -> bool:
        self._must_run(process)
        try:
            return (await self.http.get(process.url + "/ready")).status_code == 200
        except httpx2.TransportError:
            return False

    async def _joined(self, process: Process) -> bool:
        self._must_run(process)
        if not self.frontends:
            return True
        replicas = (await self.get("/v1/replicas"))["data"]
        return any(replica["pid"] == process.pid and replica["state"] != "starting" for replica in replicas)

    @staticmethod
    def _must_run(process: Process) -> None:
        assert process.process.returncode is None, process.log.read_text()

    async def close(self) -> None:
        for process in (*self.frontends, *self.workers):
            if process.process.returncode is None:
                process.signal(signal.SIGCONT)
                process.signal(signal.SIGTERM)
        for process in (*self.frontends, *self.workers):
            try:
                async with asyncio.timeout(10):
                    await process.process.wait()
            except TimeoutError:
                await process.kill()
                raise AssertionError(f"a replica did not end on SIGTERM:\n{process.log.read_text()}") from None


@asynccontextmanager
async def running(
    settings: Settings,
    directory: Path,
    *,
    frontends: int = 1,
    workers: int = 1,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Cluster]:
    """A cluster with echo workers; everything is ended afterwards, and must end by itself when told to.

    `headers` are those of every call, unless it brings others. A stream's status line goes out at once unless the
    settings say otherwise: tests wait for it before they act.
    """
    if "headers_after_secs" not in settings.model_fields_set:
        settings = settings.model_copy(update={"headers_after_secs": 0.0})
    async with httpx2.AsyncClient(timeout=30, trust_env=False, headers=headers) as http:
        cluster = Cluster(settings, directory, http)
        try:
            await asyncio.gather(*(cluster.frontend() for _ in range(frontends)))
            await asyncio.gather(*(cluster.worker() for _ in range(workers)))
            yield cluster
        finally:
            await cluster.close()
