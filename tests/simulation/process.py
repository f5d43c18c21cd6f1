"""A simulated operating-system process: everything that runs in its context pauses and dies together."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.loop import VirtualLoop

CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class State(Enum):
    RUNNING = auto()
    PAUSED = auto()
    DEAD = auto()


class Process:
    """One process. Its tasks, timers and callbacks are those that were created in its context."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self.clock_offset_secs = 0.0  # of its wall clock
        self.crash_after: int | None = None  # so many further turns of its tasks
        self.on_crash: list[Callable[[], None]] = []
        self.held: list[asyncio.Handle] = []  # callbacks that are due while it is paused
        self.arrivals: list[asyncio.Handle] = []  # data that came to its sockets meanwhile
        self._loop = loop
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, self)

    def __repr__(self) -> str:
        return f"<Process {self.name} {self.state.name.lower()}>"

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine in this process."""
        return self._loop.create_task(coroutine, name=name, context=self.context.copy())

    def pause(self) -> None:
        """Stop running, as after SIGSTOP."""
        if self.state is State.RUNNING:
            self.state = State.PAUSED

    def resume(self) -> None:
        """Run again. What came to its sockets is read before its overdue timers are handled, as by asyncio."""
        if self.state is State.PAUSED:
            self.state = State.RUNNING
            held, self.held = self.arrivals + self.held, []
            self.arrivals = []
            self._loop.make_ready(held)

    def crash(self) -> None:
        """Die at once, as after SIGKILL: not one further callback runs."""
        if self.state is State.DEAD:
            return
        self.state = State.DEAD
        self.crash_after = None
        self.held, self.arrivals = [], []
        self._loop.keep_tasks_of(self)
        for call in self.on_crash:
            call()
        self.on_crash = []


def current() -> Process | None:
    """Return the process whose code runs now; None for the simulation's own."""
    return CURRENT.get()
