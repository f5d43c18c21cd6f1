"""Interrupt an engine's await when its context is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from lifecycle.execution.context import EngineContext

T = TypeVar("T")


class Interrupted(Exception):
    """Raised when the context was stopped before the awaited result was available."""


class Interruption:
    """Run awaits that end when `context` is stopped, inside a `with` block.

    No task is created, neither for a request nor for an await: the await is cancelled in place, in the task that runs
    it, as `asyncio.timeout` does it. So a cancellation from outside keeps its meaning, and every `finally` inside the
    await has run when `Interrupted` is raised.
    """

    __slots__ = ("_context", "_scope", "_unlisten")

    def __init__(self, context: EngineContext) -> None:
        """Prepare for `context`; awaits are interrupted between `__enter__` and `__exit__`."""
        self._context = context
        self._scope: asyncio.Timeout | None = None

    def __enter__(self) -> Interruption:
        self._unlisten = self._context.add_listener(self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        self._unlisten()

    async def run(self, awaitable: Awaitable[T]) -> T:
        """Return the awaitable's result. Raise Interrupted if the context is stopped first."""
        scope = asyncio.timeout(0 if self._context.is_stopped else None)
        try:
            async with scope:
                self._scope = scope
                return await awaitable
        except TimeoutError:
            if scope.expired():
                raise Interrupted from None
            raise
        finally:
            self._scope = None

    def _interrupt(self) -> None:
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())
