"""The replicas of a simulated cluster: places in which processes are started, and started anew when they have ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from lifecycle.errors import StoreUnavailable
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine
from lifecycle.execution.worker import Worker
from lifecycle.replica.loop_monitor import LoopMonitor
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process, State
from tests.simulation.story import Story

_ERROR_FRAMES_SECS = 2.0  # as in frontend/server.py
_runs = itertools.count()


class Slot:
    """A place for a replica, such as `frontend-1`. A supervisor starts a new process `pause_secs` after the last."""

    def __init__(self, name: str, loop: VirtualLoop, settings: Settings, story: Story) -> None:
        self.name = name
        self.process: Process | None = None
        self.failures: list[str] = []  # ends that are faults of the product
        self._loop = loop
        self._settings = settings
        self._story = story
        self._stop = asyncio.Event()
        self._generation = 0

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.state is not State.DEAD

    def start(self) -> None:
        """Start a process, unless one runs."""
        if self.runs:
            return
        self._generation += 1
        self._stop = asyncio.Event()
        process = self.process = Process(self._loop, self.name)
        self._story.note(self.name, "starts")
        process.on_crash.append(self._on_crash)
        process.spawn(self._live(process, self._stop), f"{self.name} main")

    def drain(self) -> None:
        """Ask the process to end in order."""
        if self.runs:
            assert self.process is not None
            self._loop.call_soon(self._stop.set, context=self.process.context)

    def _on_crash(self) -> None:
        self._story.note(self.name, "is killed")
        self._restart()

    def _restart(self) -> None:
        pause_secs = (0.3, 1.0, 2.5)[self._generation % 3]
        self._loop.call_later(pause_secs, self.start, context=self._loop.own_context)

    async def _live(self, process: Process, stop: asyncio.Event) -> None:
        try:
            await self._main(stop)
        except Exception as failure:
            if isinstance(failure, RuntimeError) and self._loop.is_over:
                return
            self._story.note(self.name, f"ends: {failure!r:.200}")
            if not _is_expected(failure):
                self.failures.append(f"{self.name} ended: {failure!r}")
        else:
            self._story.note(self.name, "has ended in order")
        process.on_crash = [call for call in process.on_crash if call != self._on_crash]
        self._loop.call_soon(process.crash, context=self._loop.own_context)  # the system closes what is left open
        self._restart()

    async def _main(self, stop: asyncio.Event) -> None:
        raise NotImplementedError


def _is_expected(failure: BaseException) -> bool:
    if isinstance(failure, BaseExceptionGroup):
        return all(map(_is_expected, failure.exceptions))
    return isinstance(failure, StoreUnavailable)  # a process that finds no Redis at its start ends


class Frontend(Slot):
    """A frontend without HTTP: its tracker, while it accepts calls."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.tracker: Tracker | None = None

    @property
    def accepts(self) -> bool:
        return self.runs and self.tracker is not None

    async def _main(self, stop: asyncio.Event) -> None:
        self.tracker = None
        async with Tracker.open(self._settings, Metrics(), f"http://{self.name}") as tracker:
            self._story.note(self.name, f"is {tracker.id}")
            self.tracker = tracker
            await stop.wait()
            self._story.note(self.name, "drains")
            tracker.draining = True
            await tracker.announce()
            await tracker.readers.wait_until_quiet(tracker.settings.drain_timeout_secs)
            await tracker.hand_over()
            await tracker.readers.wait_until_quiet(_ERROR_FRAMES_SECS)
            self.tracker = None

    def _on_crash(self) -> None:
        self.tracker = None
        super()._on_crash()


class WorkerSlot(Slot):
    """A worker of one model."""

    def __init__(self, *given: Any, model: str, resumable: bool) -> None:
        super().__init__(*given)
        self._model = model
        self._resumable = resumable

    async def _main(self, stop: asyncio.Event) -> None:
        engine = signed_engine(self.name, self._resumable, self._story)
        async with Connections.open(self._settings) as connections:
            worker = Worker(self._settings, connections, self._model, engine)
            self._story.note(self.name, f"is {worker.id}")

            async def drain() -> None:
                await stop.wait()
                self._story.note(self.name, "drains")
                worker.drain()

            draining = asyncio.create_task(drain(), name="drain")
            try:
                await worker.run()
            finally:
                draining.cancel()


def signed_engine(name: str, resumable: bool, story: Story) -> Engine:
    """Return an engine of which each token names its number, its attempt and its run (see tests/chaos/audit/asked)."""

    async def signed(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        run = f"run{next(_runs)}"
        words, pause_secs = int(request["words"]), float(request["pause_secs"])
        story.note(name, f"engine begins {context.id} attempt {context.attempt} behind {len(context.emitted)}")
        for number in range(len(context.emitted), words):
            if context.is_stopped:
                return
            yield f"{number}@{context.attempt}.{run} "
            await asyncio.sleep(pause_secs)

    signed.resumable = resumable  # type: ignore[attr-defined]
    return signed


async def _watch_in_loop(self: LoopMonitor) -> None:
    """Stand in for `LoopMonitor.run`: there are no threads. A paused process has stopped its monitor too."""
    await asyncio.Event().wait()


def without_threads() -> Callable[[], None]:
    """Replace the thread of the loop monitor; return what undoes it."""
    before = LoopMonitor.run
    LoopMonitor.run = _watch_in_loop  # type: ignore[method-assign]
    _reset_runs()

    def undo() -> None:
        LoopMonitor.run = before  # type: ignore[method-assign]

    return undo


def _reset_runs() -> None:
    global _runs
    _runs = itertools.count()
