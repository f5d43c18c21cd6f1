"""An event loop on virtual time: when nothing is ready, its clock jumps to the next timer.

It runs one callback after the other in an order that depends on nothing but the callbacks. Those of a paused process
are held, and those of a dead one are dropped.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import warnings
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from tests.simulation.process import CURRENT, Process, State, current

Connect = Callable[[Callable[[], asyncio.BaseProtocol], str, int], Coroutine[Any, Any, Any]]


class Stuck(Exception):
    """Raised when nothing is ready and no timer is set, although somebody waits."""


class _Task(asyncio.Task[Any]):
    """A task with a number as its hash, so that sets of tasks have the same order in each run."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self.number = number
        self.process = current()
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `time()` starts at 1,000 seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._numbers = itertools.count()
        self._of_the_dead: list[_Task] = []
        self._timers: list[tuple[float, int, Any]] = []
        self._over = False
        self.connect: Connect | None = None
        self.turns = 0
        self.own_context = contextvars.copy_context()  # of no process
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None, **options: Any
    ) -> asyncio.Task[Any]:
        if context is not None:
            return context.run(self._new_task, coroutine, context=context, **options)  # type: ignore[no-any-return]
        return self._new_task(coroutine, **options)

    def _new_task(self, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return _Task(coroutine, next(self._numbers), loop=self, **options)

    def keep_tasks_of(self, process: Process) -> None:
        """Keep the tasks of a dead process until the end, so that no `finally` of them runs."""
        self._of_the_dead += [
            task for task in asyncio.all_tasks(self) if isinstance(task, _Task) and task.process is process
        ]

    @property
    def is_over(self) -> bool:
        """Return whether everything was thrown away."""
        return self._over

    def make_ready(self, handles: Iterable[asyncio.Handle]) -> None:
        """Run these callbacks next, in this order."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def throw_away(self) -> None:
        """Drop everything that still waits, without running any of it. The loop cannot be used afterwards."""
        self._over = True
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a `finally` still wants to do is not done
            for task in [*self._of_the_dead, *asyncio.all_tasks(self)]:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(BaseException):
                    task.get_coro().close()
        self._of_the_dead.clear()

    # What asyncio calls

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        if not self._over:
            self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._over:
            heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_exception_handler(self, context: Any) -> None:
        future = context.get("future")
        # Nobody reads the outcome of a task whose process died before the task's callbacks ran.
        of_the_dead = isinstance(future, _Task) and future.process is not None and future.process.state is State.DEAD
        if not self._over and not of_the_dead:
            super().call_exception_handler(context)

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def create_task(self, coroutine: Any, **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        if self._over:
            coroutine.close()
            raise RuntimeError("the simulation is over")
        return super().create_task(coroutine, **options)

    def _run_once(self) -> None:
        """Do one turn, as asyncio does: timers that are due, then what was ready when the turn began."""
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise Stuck("nothing is ready, and no timer is set")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self._run(handle)

    def _run(self, handle: Any) -> None:
        process = handle._context.get(CURRENT)
        if process is not None:
            if process.state is State.PAUSED:
                process.held.append(handle)
                return
            if process.state is State.DEAD:
                return
            if process.crash_after is not None:
                process.crash_after -= 1
                if process.crash_after < 0:
                    process.crash()
                    return
        self.turns += 1
        handle._run()

    def _write_to_self(self) -> None:
        """Wake nobody: there is one thread."""

    def _process_events(self, event_list: Any) -> None:
        """Ignore them: there are no file descriptors."""

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        assert self.connect is not None
        return await self.connect(protocol_factory, host, port)
