"""Run a synchronous generator in a thread, as an engine."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine
from lifecycle.types import Event

_END: Any = object()


class ThreadedEngine:
    """Make an engine of a synchronous generator function that declares `run_in_thread = True`.

    Each attempt has a thread of its own. The generator is advanced when its last event has been taken, so it never
    runs ahead. On a kill it ends at its next `yield`; until then the attempt goes on.
    """

    def __init__(self, engine: object) -> None:
        """Wrap `engine`, whose other declarations stay visible as attributes."""
        self._engine = cast(Callable[[dict[str, Any], EngineContext], Iterator[Event]], engine)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[Event]:
        """Yield what the generator yields, and raise what it raises."""
        thread = DaemonThread(f"engine {context.id}")
        try:
            produced = await thread.run(lambda: iter(self._engine(request, context)))
            try:
                while (event := await thread.run(lambda: next(produced, _END))) is not _END:
                    yield event
            finally:
                close = getattr(produced, "close", None)
                if close is not None:
                    await thread.run(close)
        finally:
            thread.end()


class DaemonThread:
    """Run functions one after the other in one thread, which does not hold the end of the process."""

    def __init__(self, name: str) -> None:
        """Start the thread, which waits for functions until `end`."""
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Return the function's result, to be awaited. Whoever cancels it leaves the thread to itself."""
        result: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put((function, result))
        return result

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return the function's result. When cancelled, wait for its end first: the engine is busy until then."""
        result = self.submit(function)
        cancelled: asyncio.CancelledError | None = None
        while not result.done():
            try:
                await asyncio.wait((result,))
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
        if cancelled is not None:
            result.exception()  # asyncio logs an exception that is never retrieved
            raise cancelled
        return result.result()

    def end(self) -> None:
        """Let the thread end once it has run what it was given."""
        self._jobs.put(None)

    def _work(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for the result
            while (job := self._jobs.get()) is not None:
                function, result = job
                value, failure = None, None
                try:
                    value = function()
                except BaseException as raised:
                    failure = raised
                self._loop.call_soon_threadsafe(_settle, result, value, failure)


def _settle(result: asyncio.Future[Any], value: Any, failure: BaseException | None) -> None:
    if result.done():  # cancelled
        return
    if isinstance(failure, StopIteration):  # a future refuses it
        failure = RuntimeError("the engine raised StopIteration")
    if failure is None:
        result.set_result(value)
    else:
        result.set_exception(failure)


def as_async(engine: Engine) -> Engine:
    """Return the engine, or a ThreadedEngine for one that declares `run_in_thread = True`."""
    return ThreadedEngine(engine) if getattr(engine, "run_in_thread", False) is True else engine
