"""Run a worker in an application's own process."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lifecycle.clients.arguments import load_settings
from lifecycle.errors import InvalidSetting
from lifecycle.execution import worker as execution
from lifecycle.execution.declarations import as_engine
from lifecycle.ids import MODEL_RULE, is_model_name
from lifecycle.store.connect import Connections
from lifecycle.tracking.public_errors import public_errors

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """Serve one or more models with an engine. `await Worker(generate, model="mine").run()` runs it to its end."""

    def __init__(self, engine: Callable[..., Any], model: str | Sequence[str], **settings: Any) -> None:
        """Prepare the worker. `model` is the name of one model, or the names of several that share the engine.

        `settings` are those of `LIFECYCLE_*` in lower case, such as `concurrency`, and take precedence over the
        environment. Raises InvalidSetting when one of them is wrong, when `engine` cannot be an engine, or when the
        name of a model is malformed.
        """
        self._settings = load_settings(settings)
        self._engine = as_engine(f"the engine {getattr(engine, '__name__', engine)!r}", engine)
        self._models = (model,) if isinstance(model, str) else tuple(model)
        if not self._models or not all(isinstance(name, str) and is_model_name(name) for name in self._models):
            raise InvalidSetting(f"model is {model!r:.200}: pass the model as clients request it, {MODEL_RULE}")
        self._draining = False
        self._worker: execution.Worker | None = None

    def drain(self) -> None:
        """Take nothing new, let what runs finish within DRAIN_TIMEOUT_SECS, hand over the rest, and let `run` return.

        Call it from the event loop of `run`, which may also not have begun.
        """
        self._draining = True
        if self._worker is not None:
            self._worker.drain()

    async def run(self) -> None:
        """Join the cluster and serve until a drain has ended.

        SIGTERM and SIGINT drain it where nothing else handles them; a second one has its usual effect. Cancelling this
        call ends the engines at once; their requests are retried or fail when the lease expires.

        Raises Unavailable when Redis cannot be reached within ten seconds, and InvalidSetting when the common settings
        differ from the cluster's or the engine's `startup()` fails.
        """
        with public_errors():
            async with Connections.open(self._settings) as connections:
                self._worker = execution.Worker(self._settings, connections, self._models, self._engine)
                if self._draining:
                    self._worker.drain()
                with _drained_by_signals(self.drain):
                    await self._worker.run()


@contextmanager
def _drained_by_signals(drain: Callable[[], None]) -> Iterator[None]:
    """Call `drain` at the first of the signals that nothing else handles; the next one has its usual effect."""
    loop = asyncio.get_running_loop()
    previous: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)
        previous.clear()

    def on_signal(number: int, frame: FrameType | None) -> None:
        restore()
        loop.call_soon_threadsafe(drain)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if _is_default(number):
                previous[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()


def _is_default(number: signal.Signals) -> bool:
    """Return whether nobody handles the signal but Python itself: asyncio's runner handles SIGINT only by default."""
    handler = signal.getsignal(number)
    if isinstance(handler, functools.partial):
        return isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)
    return handler in (signal.SIG_DFL, signal.default_int_handler)
