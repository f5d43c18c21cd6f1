"""The cooperative side of a cancel: what an engine can ask, what it is told, and what it may report back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from weakref import WeakSet


class _Level(IntEnum):
    """How firmly the engine was told to end. A context only ever rises."""

    RUNNING = 0
    STOPPED = 1
    KILLED = 2


class EngineContext:
    """One attempt at one request, as its engine sees it.

    `stop` asks for no more tokens; `kill` asks to end now and is final. Both may be repeated and come in any order:
    the firmest one counts. Both reach the linked children before they return. Use it from the event loop's thread only.

    An engine may report through these attributes:

    - `finish_reason`: why it ended, in OpenAI's words ("length", …); None reads as "stop"
    - `input_tokens`: the length of the prompt, if it knows

    `emitted` holds the tokens of earlier attempts, for an engine that can go on behind them; it is empty normally.
    `traceparent` is for an engine that calls others: the trace this belongs to, in W3C's form; empty if there is none.
    """

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_children",
        "_id",
        "_killed",
        "_level",
        "_listeners",
        "_parents",
        "_stopped",
        "emitted",
        "finish_reason",
        "input_tokens",
        "traceparent",
    )

    def __init__(self, id: str, attempt: int = 1) -> None:
        self._id = id
        self._attempt = attempt
        self._level = _Level.RUNNING
        self._stopped: asyncio.Event | None = None  # there once somebody waits
        self._killed: asyncio.Event | None = None
        self._listeners: list[Callable[[], None]] = []
        # A child keeps its parents alive, so that no link of a chain is lost while somebody holds its end;
        # a parent does not keep its children, so that one that outlives many of them does not grow.
        self._children: WeakSet[EngineContext] | None = None
        self._parents: set[EngineContext] = set()
        self.finish_reason: str | None = None
        self.input_tokens: int | None = None
        self.emitted: list[str] = []
        self.traceparent = ""

    def __repr__(self) -> str:
        return f"<EngineContext {self._id} attempt={self._attempt} {self._level.name.lower()}>"

    @property
    def id(self) -> str:
        """The request id."""
        return self._id

    @property
    def attempt(self) -> int:
        """Which try this is, counted from 1."""
        return self._attempt

    @property
    def is_stopped(self) -> bool:
        """Whether no more tokens are wanted: after a stop, and after a kill."""
        return self._level >= _Level.STOPPED

    @property
    def is_killed(self) -> bool:
        return self._level is _Level.KILLED

    async def stopped(self) -> None:
        """Returns once a stop or a kill was asked for."""
        if not self.is_stopped:
            self._stopped = self._stopped or asyncio.Event()
            await self._stopped.wait()

    async def killed(self) -> None:
        """Returns once a kill was asked for."""
        if not self.is_killed:
            self._killed = self._killed or asyncio.Event()
            await self._killed.wait()

    def stop(self) -> None:
        """Produce no more."""
        self._raise_to(_Level.STOPPED)

    def stop_generating(self) -> None:
        """Produce no more: the same as `stop`."""
        self._raise_to(_Level.STOPPED)

    def kill(self) -> None:
        """End now."""
        self._raise_to(_Level.KILLED)

    def link_child(self, context: EngineContext) -> None:
        """From now on `context` is stopped and killed with this one; it inherits what already happened.

        The link lasts as long as somebody else holds the child, or a child of the child.
        """
        if self._children is None:
            self._children = WeakSet()
        self._children.add(context)
        context._parents.add(self)
        context._raise_to(self._level)

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever this context becomes stopped or killed, until the returned function is called.

        It is called synchronously, at most twice, and must not raise. What happened before is not repeated.
        """
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def _raise_to(self, level: _Level) -> None:
        """Raise this context and everything below it to `level`.

        A child is never below its parents, so a context that is already there ends the descent, and with it a cycle.
        """
        pending = [self]
        while pending:
            context = pending.pop()
            if context._level >= level:
                continue
            context._level = level
            if context._stopped is not None:
                context._stopped.set()
            if context._killed is not None and level is _Level.KILLED:
                context._killed.set()
            if context._children:
                pending.extend(context._children)
            for listener in tuple(context._listeners):
                listener()
