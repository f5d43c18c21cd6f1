"""Give an engine the means to notice a cancel and to report about its work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any
from weakref import WeakSet

from lifecycle.types import Event


class _Level(IntEnum):
    """Order the states of a context. A context moves to higher levels only."""

    RUNNING = 0
    STOPPED = 1
    KILLED = 2


_RUNNING, _STOPPED, _KILLED = _Level  # global names: looking a member up in its enum is slow


class EngineContext:
    """Represent one attempt at one request to its engine.

    `stop` asks for no more tokens; `kill` asks to end now and is final. Both may be repeated and come in any order;
    a kill takes precedence over a stop. Both reach the linked children before they return. Use a context from the
    event loop's thread only.

    An engine may set these attributes:

    - `finish_reason`: why it ended, as OpenAI's API names it ("length", …); None means "stop"
    - `input_tokens`: the length of the prompt in tokens; None when the engine does not know it
    - `usage`: OpenAI's usage object (`prompt_tokens`, `completion_tokens`, details, …); it takes precedence over
      `input_tokens`. None when the engine counts nothing

    It may read these:

    - `emitted`: the events of earlier attempts, for a resumable engine; usually empty
    - `endpoint`: the endpoint that the request came to, such as "chat_completions"
    - `headers`: the headers of the call that LIFECYCLE_FORWARD_HEADERS selects, by their lower-case names
    - `owner`: the name of the API key that the request came with; empty for none
    - `traceparent`: the attempt's trace as a W3C `traceparent` header, for calls to other services; empty if there is
      no trace
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
        "endpoint",
        "finish_reason",
        "headers",
        "input_tokens",
        "owner",
        "traceparent",
        "usage",
    )

    def __init__(self, id: str, attempt: int = 1) -> None:
        """Start a running context for the request `id`; `attempt` counts from 1."""
        self._id = id
        self._attempt = attempt
        self._level = _RUNNING
        self._stopped: asyncio.Event | None = None  # created by the first waiter
        self._killed: asyncio.Event | None = None
        self._listeners: list[Callable[[], None]] = []
        # A child keeps its parents alive, so that a chain stays linked while somebody holds its last member.
        # A parent does not keep its children alive, so that a parent that outlives many children does not grow.
        self._children: WeakSet[EngineContext] | None = None
        self._parents: set[EngineContext] = set()
        self.finish_reason: str | None = None
        self.input_tokens: int | None = None
        self.usage: dict[str, Any] | None = None
        self.emitted: Sequence[Event] = []
        self.endpoint = ""
        self.headers: dict[str, str] = {}
        self.owner = ""
        self.traceparent = ""

    def __repr__(self) -> str:
        return f"<EngineContext {self._id} attempt={self._attempt} {self._level.name.lower()}>"

    @property
    def id(self) -> str:
        """Return the request id."""
        return self._id

    @property
    def attempt(self) -> int:
        """Return the number of the attempt, counted from 1."""
        return self._attempt

    @property
    def is_stopped(self) -> bool:
        """Return whether no more tokens are wanted: True after a stop and after a kill."""
        return self._level >= _STOPPED

    @property
    def is_killed(self) -> bool:
        """Return whether the engine must end now."""
        return self._level is _KILLED

    async def stopped(self) -> None:
        """Wait until a stop or a kill is requested."""
        if not self.is_stopped:
            self._stopped = self._stopped or asyncio.Event()
            await self._stopped.wait()

    async def killed(self) -> None:
        """Wait until a kill is requested."""
        if not self.is_killed:
            self._killed = self._killed or asyncio.Event()
            await self._killed.wait()

    def stop(self) -> None:
        """Ask the engine to produce no more tokens."""
        self._raise_to(_STOPPED)

    def stop_generating(self) -> None:
        """Ask the engine to produce no more tokens; the same as `stop`."""
        self._raise_to(_STOPPED)

    def kill(self) -> None:
        """Ask the engine to end now."""
        self._raise_to(_KILLED)

    def link_child(self, context: EngineContext) -> None:
        """Stop and kill `context` together with this one. It inherits a stop or kill that has happened already.

        The link lasts as long as somebody else holds the child, or a child of the child.
        """
        if self._children is None:
            self._children = WeakSet()
        self._children.add(context)
        context._parents.add(self)
        context._raise_to(self._level)

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever this context becomes stopped or killed, until the returned function is called.

        The listener is called synchronously, at most twice, and must not raise. It is not called for a stop or kill
        that happened before.
        """
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def _raise_to(self, level: _Level) -> None:
        """Raise this context and all its descendants to `level`.

        A child's level is never below its parents'. So the descent ends at a context that has the level already, which
        also ends it in a cycle of links.
        """
        pending = [self]
        while pending:
            context = pending.pop()
            if context._level >= level:
                continue
            context._level = level
            if context._stopped is not None:
                context._stopped.set()
            if context._killed is not None and level is _KILLED:
                context._killed.set()
            if context._children:
                pending.extend(context._children)
            for listener in tuple(context._listeners):
                listener()
