"""Run one worker as a process, from loading its engine to the end of its drain.

The first SIGTERM or SIGINT starts a drain: the worker takes no new requests, lets running ones finish within
DRAIN_TIMEOUT_SECS, and moves or fails the rest. A second signal ends the worker at once. A third one has the system's
default effect, in case an engine does not end.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from lifecycle.errors import LifecycleError
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from worker.engines import load_engine

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(settings: Settings, model: str, engine_spec: str) -> None:
    """Serve `model` with the engine that `engine_spec` names, until a signal ends the worker.

    Raise SettingsError or LifecycleError, with one line that says what to do, when the worker cannot start;
    KeyboardInterrupt after a drain that SIGINT started; LifecycleError when a second signal ended the worker.
    """
    engine = load_engine(engine_spec, settings)
    async with Connections.open(settings) as connections:
        worker = Worker(settings, connections, model, engine)
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
