"""Adapt the number of a worker's concurrency slots to its engine while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from statistics import median

from lifecycle.aio import tasks
from lifecycle.execution.attempt import Attempt
from lifecycle.execution.concurrency_controller import ConcurrencyController, Window
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.execution.declarations import declared_concurrency
from lifecycle.execution.engine import Engine
from lifecycle.execution.failures import message_of
from lifecycle.settings import Settings

log = logging.getLogger(__name__)

_WINDOW_SECS = 1.0  # at least
# How many first events a decision by latency needs, of attempts that began after the last change. It needs fewer, one
# for each slot that this change has added, if the time between events is known.
_FIRST_EVENTS = 4
_EVENTS = 20  # that the time between events is measured by
_WAITING_TIMEOUT_SECS = 2.0


class ConcurrencyTuner:
    """Set the number of slots, and where it is `auto` adapt it: observe what runs in windows of a second or more."""

    def __init__(
        self,
        settings: Settings,
        slots: ConcurrencySlots,
        engine: Engine,
        attempts: Callable[[], Sequence[Attempt]],
    ) -> None:
        """`engine` may declare its `concurrency`, and `waiting()`; `attempts` returns those that run."""
        self._settings = settings
        self._slots = slots
        self._engine = engine
        self._attempts = attempts
        self._controller: ConcurrencyController | None = None
        self.adapting: asyncio.Task[None] | None = None
        """The task that adapts the slots. The owner ends it; the engine's `waiting()` may swallow its cancellation."""
        self._changed_at = self._looked_at = 0.0
        self._added = 1  # slots, by the last change; negative after a cut
        self._first_events: list[float] = []  # seconds from an attempt's beginning
        self._produced: dict[Attempt, int] = {}  # when the attempts were looked at last

    def begin(self) -> None:
        """Have as many slots as the settings say, else as the engine declares, which has started.

        Where the settings say `auto`, adapt them from now until `adapting` is ended: at most as many as the engine
        declares, unless the settings have a maximum.
        """
        settings, declared = self._settings, declared_concurrency(self._engine)
        if settings.is_auto:
            low, high = settings.concurrency_min, settings.concurrency_max
            if declared is not None and "concurrency_max" not in settings.model_fields_set:
                high = max(low, declared)
            self._controller = ConcurrencyController(low, high)
            self._slots.resize(low)
            self.adapting = asyncio.create_task(self._run(self._controller), name="concurrency")
        elif declared is not None and "concurrency" not in settings.model_fields_set:
            self._slots.resize(declared)

    def note_first_event(self, secs: float) -> None:
        """Note that an attempt has yielded its first event `secs` after its beginning."""
        if self._controller is not None and _now() - secs >= self._changed_at:
            self._first_events.append(secs)

    async def _run(self, controller: ConcurrencyController) -> None:
        self._changed_at = self._looked_at = _now()
        while True:
            await asyncio.sleep(_WINDOW_SECS)
            waiting = await self._waiting()
            tasks.check_cancelled()
            self._look(controller, waiting)

    def _look(self, controller: ConcurrencyController, waiting: int | None) -> None:
        """Decide about the slots if enough was seen since the last decision."""
        event_secs = self._event_secs()
        if waiting is None and len(self._first_events) < self._needed(event_secs):
            return
        if self._slots.used > self._slots.size:
            return  # more run than the present limit allows, so what is seen is not due to it
        is_limited = self._slots.peak >= self._slots.size
        first_event_secs = median(self._first_events) if len(self._first_events) >= _FIRST_EVENTS else None
        before = controller.limit
        limit = controller.close_window(Window(is_limited, first_event_secs, event_secs, waiting))
        self._first_events.clear()
        self._slots.reset_peak()
        if limit != before:
            self._changed_at, self._added = _now(), limit - before
            self._slots.resize(limit)
            log.debug("the worker has %d slots now, after %d", limit, before)

    def _needed(self, event_secs: float | None) -> int:
        """Return how many first events a decision by latency needs: with long answers, as many as slots were added."""
        if event_secs is None or self._added < 0:
            return _FIRST_EVENTS
        return min(_FIRST_EVENTS, self._added)

    def _event_secs(self) -> float | None:
        """Return the median of the times between the events of each attempt since the last look."""
        now, before = _now(), self._produced
        secs, self._looked_at = now - self._looked_at, now
        self._produced = {attempt: produced for attempt in self._attempts() if (produced := attempt.sink.produced)}
        counts = [number - before[attempt] for attempt, number in self._produced.items() if attempt in before]
        moved = [count for count in counts if count > 0]
        return median(secs / count for count in moved) if sum(moved) >= _EVENTS else None

    async def _waiting(self) -> int | None:
        """Return how many requests wait inside the engine, None when it does not tell."""
        ask = getattr(self._engine, "waiting", None)
        if ask is None:
            return None
        try:
            async with asyncio.timeout(_WAITING_TIMEOUT_SECS):
                waiting = await ask()
        except (Exception, SystemExit, KeyboardInterrupt) as failure:
            log.debug("the engine does not tell what waits, so latencies decide: %s", message_of(failure))
            return None
        return waiting if isinstance(waiting, int) else None


def _now() -> float:
    return asyncio.get_running_loop().time()
