"""Runs one worker as a process: from its engine's name to the end of its drain.

The first SIGTERM or SIGINT drains: nothing new is taken, what runs may finish within DRAIN_TIMEOUT_SECS, the rest
moves or fails. A second one ends at once, and a third, should an engine not let go, is the system's.
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
    """Until a signal. Raises SettingsError or LifecycleError with one line when it cannot start.

    After a drain that Ctrl-C asked for it raises KeyboardInterrupt; ended at once, LifecycleError.
    """
    engine = load_engine(engine_spec, settings)
    async with Connections.open(settings) as connections:
        worker = Worker(settings, connections, model, engine)
        running = asyncio.create_task(worker.run(), name="worker")
        signals = _Signals(worker, running)
        try:
            await running
        except asyncio.CancelledError:
            if signals.impatient:
                raise LifecycleError("ended at once: what ran here fails, or moves, once the lease is over") from None
            raise
        finally:
            signals.close()
    if signals.interrupted:
        raise KeyboardInterrupt


class _Signals:
    """What signals do to a worker, until `close()`."""

    def __init__(self, worker: Worker, running: asyncio.Task[None]) -> None:
        self._worker = worker
        self._running = running
        self._received: list[signal.Signals] = []
        self._loop = asyncio.get_running_loop()
        for signum in _SIGNALS:
            self._loop.add_signal_handler(signum, self._on_signal, signum)

    @property
    def interrupted(self) -> bool:
        return self._received[:1] == [signal.SIGINT]

    @property
    def impatient(self) -> bool:
        return len(self._received) > 1

    def close(self) -> None:
        for signum in _SIGNALS:
            self._loop.remove_signal_handler(signum)

    def _on_signal(self, signum: signal.Signals) -> None:
        self._received.append(signum)
        if not self.impatient:
            log.info("%s: draining", signum.name)
            self._worker.drain()
            return
        self._running.cancel()
        self.close()
