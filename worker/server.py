"""Run one worker as a process, from loading its engine to the end of its drain.

The first SIGTERM or SIGINT starts a drain: the worker takes no new requests, lets running ones finish within
DRAIN_TIMEOUT_SECS, and moves or fails the rest. A second signal ends the worker at once. A third one has the system's
default effect, in case an engine does not end.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence

from lifecycle.errors import LifecycleError
from lifecycle.execution.engine import Engine, close_engine
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings, SettingsError
from lifecycle.store.connect import Connections
from worker.engines import load_engine

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(settings: Settings, models: Sequence[str], engine_spec: str) -> None:
    """Serve `models` with the engine that `engine_spec` names, until a signal ends the worker.

    Without any, the `openai` engine serves the models that its upstream lists.
    Raise SettingsError or LifecycleError, with one line that says what to do, when the worker cannot start;
    KeyboardInterrupt after a drain that SIGINT started; LifecycleError when a second signal ended the worker.
    """
    engine = load_engine(engine_spec, settings)
    models = await _models(models, engine)
    async with Connections.open(settings) as connections:
        worker = Worker(settings, connections, models, engine)
        running = asyncio.create_task(worker.run(), name="worker")
        signals = _Signals(worker, running)
        try:
            await running
        except asyncio.CancelledError:
            if signals.forced:
                raise LifecycleError(
                    "a second signal ended the worker at once; its requests are requeued or fail when its lease expires"
                ) from None
            raise
        finally:
            signals.close()
    if signals.interrupted:
        raise KeyboardInterrupt


async def _models(given: Sequence[str], engine: Engine) -> Sequence[str]:
    """Return the models to serve: those `given`, or the ones that the engine lists with its method `models()`."""
    if any(not model.strip() for model in given):
        raise SettingsError("--model is empty: pass the name of the model, as clients request it")
    if given:
        return given
    list_models = getattr(engine, "models", None)
    if list_models is None:
        raise SettingsError("--model is missing: pass the name of the model, as clients request it")
    try:
        found: list[str] = await list_models()
    except BaseException:
        await close_engine(engine)
        raise
    return found


class _Signals:
    """Drain or end a worker on signals, until `close()`."""

    def __init__(self, worker: Worker, running: asyncio.Task[None]) -> None:
        self._worker = worker
        self._running = running
        self._received: list[signal.Signals] = []
        self._loop = asyncio.get_running_loop()
        for signum in _SIGNALS:
            self._loop.add_signal_handler(signum, self._on_signal, signum)

    @property
    def interrupted(self) -> bool:
        """Return whether the drain was started by SIGINT."""
        return self._received[:1] == [signal.SIGINT]

    @property
    def forced(self) -> bool:
        """Return whether a second signal has ended the worker without waiting for its requests."""
        return len(self._received) > 1

    def close(self) -> None:
        """Restore the default effect of the signals."""
        for signum in _SIGNALS:
            self._loop.remove_signal_handler(signum)

    def _on_signal(self, signum: signal.Signals) -> None:
        self._received.append(signum)
        if not self.forced:
            log.info("received %s: the worker drains; a second signal ends it at once", signum.name)
            self._worker.drain()
            return
        self._running.cancel()
        self.close()
