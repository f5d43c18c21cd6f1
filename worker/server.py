"""Run one worker as a process, from loading its engine to the end of its drain.

The first SIGTERM, SIGINT or SIGHUP starts a drain, and so does an operator's instruction: the worker takes no new
requests, lets running ones finish within DRAIN_TIMEOUT_SECS, and moves or fails the rest. A second signal ends the
worker at once. An engine that does not end keeps the process for some seconds only (`departure.py`). A third signal has
the system's default effect.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from types import FrameType

from lifecycle.errors import LifecycleError
from lifecycle.execution.hosted_engine import HostedEngine, interrupt_startup
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings, SettingsError, check_model_names
from lifecycle.store.connect import Connections
from worker.departure import Departure
from worker.engines import find_engine

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(
    settings: Settings,
    models: Sequence[str],
    engine_spec: str,
    on_blocked_heartbeat: Callable[[], None] | None = None,
) -> None:
    """Serve `models` with the engine that `engine_spec` names, until a signal ends the worker.

    Without any, the `openai` engine serves the models that its upstream lists. `on_blocked_heartbeat` gives a sign
    of life while the engine blocks the event loop; it is called by another thread.
    Raise SettingsError or LifecycleError, with one line that says what to do, when the worker cannot start;
    KeyboardInterrupt after a drain that SIGINT started; LifecycleError when a second signal ended the worker.
    """
    engine = HostedEngine(find_engine(engine_spec, settings))
    models = await _models(models, engine)

    def begin_departure() -> None:
        departure.begin()

    async with Connections.open(settings) as connections:
        worker = Worker(settings, connections, models, engine, on_blocked_heartbeat, begin_departure)
        departure = Departure(worker, engine_spec)
        running = asyncio.create_task(worker.run(), name="worker")
        signals = _Signals(worker, running, departure)
        try:
            await running
        except asyncio.CancelledError:
            if signals.forced:
                raise LifecycleError(
                    "a second signal ended the worker at once; its requests are requeued or fail when its lease expires"
                ) from None
            raise
        finally:
            departure.worker_ended()
            signals.close()
    if signals.interrupted:
        raise KeyboardInterrupt


async def _models(given: Sequence[str], engine: HostedEngine) -> Sequence[str]:
    """Return the models to serve: those `given`, or the ones that the engine lists with its method `models()`.

    Without given models the engine is loaded before the worker joins the cluster, as it would have nothing to announce.
    """
    check_model_names(given)
    if given:
        return given
    await engine.load()
    list_models = getattr(engine, "models", None)
    if list_models is None:
        raise SettingsError("--model is missing: pass the name of the model, as clients request it")
    try:
        found: list[str] = await list_models()
    except BaseException:
        await engine.aclose()
        raise
    return found


class _Signals:
    """Drain or end a worker on signals, until `close()`.

    The handlers are Python's own and not the event loop's, because they must run while an engine blocks the loop.
    """

    def __init__(self, worker: Worker, running: asyncio.Task[None], departure: Departure) -> None:
        self._worker = worker
        self._running = running
        self._departure = departure
        self._received: list[signal.Signals] = []
        self._loop = asyncio.get_running_loop()
        # `nohup` starts a process that ignores SIGHUP, and it must go on to do so.
        self._handled = [signum for signum in _SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
        for signum in self._handled:
            signal.signal(signum, self._on_signal)

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
        for signum in self._handled:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received.append(signal.Signals(number))
        if self.forced:
            self.close()
            self._departure.hurry()
            self._loop.call_soon_threadsafe(self._running.cancel)
        else:
            self._departure.begin()
            self._loop.call_soon_threadsafe(self._drain)
        interrupt_startup(frame)

    def _drain(self) -> None:
        log.info("received %s: the worker drains; a second signal ends it at once", self._received[0].name)
        self._worker.drain()
