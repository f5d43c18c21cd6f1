"""Run one tracked source: the only attempt at its request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from lifecycle.errors import Unavailable
from lifecycle.execution.attempt import Attempt
from lifecycle.execution.context import EngineContext
from lifecycle.settings import Settings
from lifecycle.store.results import Start
from lifecycle.tokens.held_back_sink import HeldBackSink, HeldBackWriter

Source = AsyncIterator[Any] | Callable[[EngineContext], AsyncIterator[Any]]
"""An async generator of JSON values, or a function of the context that returns one."""


class TrackedAttempt(Attempt):
    """Run a source as an engine. Nobody else can run it, so its request is never moved."""

    def __init__(self, rid: str, start: Start, source: Source, writer: HeldBackWriter, settings: Settings) -> None:
        """Prepare the attempt that `start` allows. `run()` runs it."""

        def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[Any]:
            return source(context) if callable(source) else source

        super().__init__(rid, start, engine, writer, settings, [], _ignore_first_event)

    @property
    def held_back_sink(self) -> HeldBackSink:
        """Return the sink, which the reader of this process tells what it has read."""
        return cast(HeldBackSink, self.sink)

    def _why_unserved(self, task: asyncio.Task[None]) -> Unavailable | None:
        """Return None: a source that is unavailable fails its request."""
        return None

    def _watch_inactivity(self) -> None:
        """Watch for inactivity of the source; while it waits for its reader it is not silent."""
        if self.held_back_sink.is_held_back:
            self._output.last_event_at = self._loop.time()
        super()._watch_inactivity()


def _ignore_first_event(_: float) -> None:
    """Do nothing: only a worker depends on first events."""
