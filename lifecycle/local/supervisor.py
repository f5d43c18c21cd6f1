"""Supervise several child processes: print their lines on one terminal, wait until all are ready, end them together.

    async with Supervisor(drain_secs=30) as supervisor:
        await supervisor.start("worker-1", [sys.executable, "-m", ...], env)
        await supervisor.wait_ready({"worker-1": is_it_there})
        return await supervisor.run()

However the block is left, no child and nothing that the children started is left behind. If this process is killed,
the children die with it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from lifecycle.errors import LifecycleError
from lifecycle.local.child_process import Child, describe_status
from lifecycle.local.console import Console

Condition = Callable[[], Awaitable[bool]]
T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
_POLL_SECS = 0.1
_ONE_PROBE_SECS = 2.0
_KILL_TIMEOUT_SECS = 5.0
_FINE = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


class Interrupted(LifecycleError):
    """Raised by `start` and `wait_ready` when a signal or `stop` came first."""


class NotReady(LifecycleError):
    """Raised when a condition did not hold in time, or its process died first; the message says which and why."""


class Supervisor:
    """Start, watch and end child processes. Use it with `async with` in the main thread's event loop.

    SIGINT, SIGTERM and SIGHUP send SIGTERM to all children and give them `drain_secs` to end. A second Ctrl-C, or the
    end of that time, kills them. Each child has its own session, so a terminal's Ctrl-C reaches only this process.
    A child that leaves or dies unexpectedly is reported, and the others go on.
    """

    def __init__(self, console: Console | None = None, *, drain_secs: float = 30.0) -> None:
        self._console = console or Console()
        self._drain_secs = drain_secs
        self._children: dict[str, Child] = {}
        self._reports: list[asyncio.Task[None]] = []
        self._stop_asked = asyncio.Event()
        self._kill_asked = asyncio.Event()
        self._signal: signal.Signals | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for signum in STOP_SIGNALS:
            loop.add_signal_handler(signum, self._on_signal, signum)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            for child in self._children.values():
                child.kill()
            loop = asyncio.get_running_loop()
            for signum in STOP_SIGNALS:
                loop.remove_signal_handler(signum)

    @property
    def children(self) -> Mapping[str, Child]:
        """Return the children by name."""
        return self._children

    @property
    def exit_code(self) -> int:
        """Return the exit code for this process: 130 after Ctrl-C, 0 after another request to stop, else 1."""
        if self._signal is signal.SIGINT:
            return INTERRUPTED
        return 0 if self._stop_asked.is_set() else 1

    async def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        """Start a child under a unique name. `env` is its whole environment, or None for this process's.

        Raises ValueError for a name in use, and Interrupted when stopping was requested.
        """
        if name in self._children:
            raise ValueError(f"a child named {name} exists already")
        if self._stop_asked.is_set():
            raise Interrupted("interrupted")
        self._console.introduce(name)
        child = await Child.start(name, argv, env, lambda line: self._console.line(name, line))
        self._children[name] = child
        self._reports.append(asyncio.create_task(self._report(child)))
        return child

    async def wait_ready(self, conditions: Mapping[str, Condition], *, timeout_secs: float = 30.0) -> None:
        """Return once every condition has returned True; a condition that raises is polled again.

        A condition under a child's name belongs to that child: if the child dies, NotReady is raised at once.
        Raises NotReady after `timeout_secs`, and Interrupted when stopping was requested.
        """
        waiting = dict(conditions)
        why: dict[str, str] = {}
        try:
            async with asyncio.timeout(timeout_secs):
                await self._unless_stopped(self._poll(waiting, why))
        except TimeoutError:
            missing = ", ".join(f"{name} ({why[name]})" if name in why else name for name in waiting)
            raise NotReady(f"not ready after {timeout_secs:g} s: {missing}") from None
        finally:
            self._console.progress("")

    async def run(self) -> int:
        """Wait for a signal or the end of all children, end the remaining ones, and return the exit code."""
        try:
            await self._unless_stopped(self._all_ended())
        except Interrupted:
            pass
        code = self.exit_code
        await self.stop()
        return code

    async def stop(self) -> None:
        """Send SIGTERM to all children, wait up to `drain_secs`, kill the rest, and return when they are gone."""
        self._stop_asked.set()
        for child in self._alive():
            child.terminate()
        await _either(self._all_ended(), self._kill_asked.wait(), timeout_secs=self._drain_secs)
        for child in self._alive():
            self._console.notice(f"killing {child.name} (pid {child.pid}), which has not ended", failure=True)
            child.kill()
        await _either(self._all_ended(), timeout_secs=_KILL_TIMEOUT_SECS)

    def _alive(self) -> list[Child]:
        return [child for child in self._children.values() if not child.ended.done()]

    async def _all_ended(self) -> None:
        if self._reports:
            await asyncio.wait(self._reports)

    async def _poll(self, waiting: dict[str, Condition], why: dict[str, str]) -> None:
        total = len(waiting)
        while True:
            self._console.progress(f"waiting for {', '.join(waiting)} ({total - len(waiting)} of {total} ready)")
            probes = await asyncio.gather(*(_probe(condition) for condition in waiting.values()))
            for name, answer in zip(list(waiting), probes, strict=True):
                why.pop(name, None)
                if answer is True:
                    del waiting[name]
                elif isinstance(answer, Exception):
                    why[name] = repr(answer)
            if not waiting:
                return
            for name in waiting:
                child = self._children.get(name)
                if child is not None and child.ended.done():
                    raise NotReady(f"{name} ended with {describe_status(child.ended.result())} before it was ready")
            await asyncio.sleep(_POLL_SECS)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of the work; cancel it and raise Interrupted when stopping is requested first."""
        task = asyncio.create_task(work)
        await _either(task, self._stop_asked.wait())
        if task.done() and not task.cancelled():
            return task.result()
        raise Interrupted("interrupted")

    async def _report(self, child: Child) -> None:
        status = await child.ended
        if not self._stop_asked.is_set() and status == 0:
            self._console.notice(f"{child.name} (pid {child.pid}) has left. The others go on.")
        elif not self._stop_asked.is_set():
            self._console.notice(
                f"{child.name} (pid {child.pid}) died unexpectedly: {describe_status(status)}. The others go on."
                + (" Its last lines:" if child.tail else ""),
                failure=True,
            )
            for line in child.tail:
                self._console.line(child.name, line)
        elif status not in _FINE:
            self._console.notice(f"{child.name} (pid {child.pid}) ended with {describe_status(status)}", failure=True)

    def _on_signal(self, signum: signal.Signals) -> None:
        if self._stop_asked.is_set():
            if signum is signal.SIGINT:
                self._kill_asked.set()
            return
        self._signal = signum
        hint = "; Ctrl-C again to kill" if signum is signal.SIGINT else ""
        self._console.notice(f"{signum.name}: stopping, for up to {self._drain_secs:g} s{hint}")
        self._stop_asked.set()


async def _probe(condition: Condition) -> bool | Exception:
    try:
        async with asyncio.timeout(_ONE_PROBE_SECS):
            return await condition()
    except Exception as failure:
        return failure


async def _either(*works: Awaitable[Any], timeout_secs: float | None = None) -> None:
    """Wait for the first of them or the timeout, then cancel the others and wait for their end."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, timeout=timeout_secs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
