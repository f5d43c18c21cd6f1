"""Run one attempt at a request: its engine, its cancels and its time limits; report its outcome once."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from lifecycle.errors import OutputTooLarge, StoreUnavailable, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.execution.declarations import is_resumable
from lifecycle.execution.engine import Engine
from lifecycle.execution.engine_output import EngineOutput
from lifecycle.execution.failures import EngineExit, location_of, message_of
from lifecycle.execution.outcomes import CANCELLED, STREAM_LOST, failure_outcome
from lifecycle.execution.translated_engine import engine_for
from lifecycle.formats.origin import Origin
from lifecycle.settings import Settings
from lifecycle.store.results import Ended, Outcome, Refusal, Start
from lifecycle.tokens.writer import TokenSink, TokenWriter
from lifecycle.types import CancelMode, ErrorDetail, ErrorType, Event

log = logging.getLogger(__name__)

_LATE_SECS = 0.05  # of a timer, from which on the event loop itself was late
_LONG_INTEGER = re.compile(rb"\d{19}")  # may be beyond 64 bits, of which orjson makes a float


class Attempt:
    """Run an engine for one request. The attempt occupies its concurrency slot until `run()` returns."""

    def __init__(
        self,
        rid: str,
        start: Start,
        engine: Engine,
        writer: TokenWriter,
        settings: Settings,
        emitted: Sequence[Event],
        on_first_event: Callable[[float], None],
    ) -> None:
        """Prepare the attempt that `start` allows.

        `emitted` holds the events of earlier attempts, `start.base` of them. `on_first_event` is called when the engine
        yields its first one, with the seconds since it was called.
        """
        self.rid = rid
        self.priority, self.preemptions = start.priority, start.preemptions
        self.context = EngineContext(rid, start.attempt)
        served, context = start.served, self.context
        context.emitted, context.endpoint, context.owner = emitted, served, start.owner
        if start.headers:
            context.headers = orjson.loads(start.headers)
        self.stuck = False  # the engine was killed and has not ended within KILL_GRACE_SECS
        self.sink: TokenSink = writer.open(rid, start, self._on_refused)
        self._engine = engine
        self._request = _decode(start.body)
        if settings.forward_priority:
            self._request["priority"] = start.priority
        origin = Origin(rid, start.created_at, self._request, emitted)
        self._translated = engine_for(engine, served, origin)
        is_translated, limit_bytes = self._translated is not engine, settings.max_output_bytes
        self._output = EngineOutput(context, self.sink, start, origin, is_translated, limit_bytes, on_first_event)
        self.began_at = self._output.began_at
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._outcome: Outcome | None = None  # set when the attempt fails before its engine has ended
        self._can_report: asyncio.Future[None] = self._loop.create_future()  # the engine has ended or `_outcome` is set
        self._abandoned = False
        self.unavailable: Unavailable | None = None  # the engine could not serve, and the request is still to be moved
        self.broke_off = False  # the engine became unavailable after its first event
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def can_move(self) -> bool:
        """Return whether another worker can continue: no content exists yet, or the engine is resumable."""
        return not self.sink.has_content or is_resumable(self._engine)

    @property
    def can_resume(self) -> bool:
        """Return whether the engine runs, nothing ends it yet, and it can continue behind what it has yielded."""
        ends = self._abandoned or self._outcome is not None or self.context.is_stopped
        return self.engine_runs and not ends and is_resumable(self._engine)

    @property
    def engine_runs(self) -> bool:
        """Return whether the engine has begun and has not ended."""
        return self._task is not None and not self._task.done()

    def cancel(self, mode: str) -> None:
        """Stop or kill the engine. Repetitions change nothing, and a stop never weakens a kill."""
        if mode == CancelMode.KILL:
            self.context.kill()
        else:
            self.context.stop()

    def fail(self, error_type: ErrorType, message: str, detail: ErrorDetail | None = None) -> None:
        """Report the attempt as failed at once, without waiting for the engine, and kill the engine."""
        if self._outcome is None:
            self._outcome = Outcome("failed", error_type, message, detail=detail)
            self._allow_report()
        self.context.kill()

    def abandon(self) -> None:
        """Kill the engine and report nothing: the request does not belong to this worker any more."""
        self._abandoned = True
        self.sink.discard()
        self.context.kill()

    async def run(self) -> Ended | None:
        """Run the engine, report the outcome, and return what Redis answered once the engine has ended.

        Return None when the attempt was abandoned, or when Redis did not answer for two leases: the reaper then ends
        or requeues the request. Return None too, with `unavailable` set and nothing reported, when the engine cannot
        serve at the moment and has yielded nothing.
        """
        task = self._task = self._loop.create_task(self._generate(), name=f"engine {self.rid}")
        task.add_done_callback(self._allow_report)
        remove_listener = self.context.add_listener(self._on_cancel)
        self._watch_inactivity()
        if self.context.is_stopped:
            self._on_cancel()
        ended: Ended | None = None
        try:
            await self._can_report
            if self._outcome is not None and not self._abandoned:
                ended = await self._report(self._outcome)
            if not task.done():
                await asyncio.wait((task,))
            if ended is None and not self._abandoned:
                self.unavailable = self._why_unserved(task)
                if self.unavailable is None:
                    ended = await self._report(self._outcome or self._engine_outcome(task))
            return ended
        finally:
            remove_listener()
            for timer in self._timers.values():
                timer.cancel()
            self.sink.discard()
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
            if not task.cancelled():
                task.exception()  # asyncio logs an exception that is never retrieved

    async def _generate(self) -> None:
        """Run the engine. A kill cancels this task at the engine's next await."""
        try:
            produced = self._translated(self._request, self.context)
            if not hasattr(produced, "__aiter__"):
                kind = type(produced).__name__
                raise TypeError(f"the engine returned a value of type {kind}; it must be an async generator function")
            try:
                if not await self._output.read(produced):
                    self._fail_too_large()
                    await asyncio.sleep(0)  # the kill, which cancels this task, takes effect here
            finally:
                close = getattr(produced, "aclose", None)  # as `aclose` does, without its coroutine
                if close is not None:
                    await close()
        except (SystemExit, KeyboardInterrupt) as failure:
            raise EngineExit(f"The engine raised {type(failure).__name__}: {message_of(failure)}") from failure

    def _fail_too_large(self) -> None:
        """Fail the attempt because its answer is too large. What was written before stays readable."""
        limit = self._settings.max_output_bytes
        log.warning(
            "the answer to request %s grew past LIFECYCLE_MAX_OUTPUT_BYTES=%d; its engine is killed", self.rid, limit
        )
        failure = OutputTooLarge(f"The answer grew past {limit} bytes, the limit; ask for a shorter one")
        self.fail(failure.error_type, failure.message, failure.detail)

    def _why_unserved(self, task: asyncio.Task[None]) -> Unavailable | None:
        """Return why another worker has to serve the request: the engine could not, and has yielded nothing.

        Return None when the attempt itself has an outcome to report.
        """
        if self._output.has_begun or self._outcome is not None or self.context.is_stopped or task.cancelled():
            return None
        failure = task.exception()
        if not isinstance(failure, Unavailable):
            return None
        log.warning("the engine cannot serve request %s now: %s", self.rid, location_of(failure))
        return failure

    def _allow_report(self, _: object = None) -> None:
        if not self._can_report.done():
            self._can_report.set_result(None)

    def _engine_outcome(self, task: asyncio.Task[None]) -> Outcome:
        """Return the outcome of an engine that has ended, by itself or after a cancel."""
        if self.context.is_killed:
            return CANCELLED
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            self.broke_off = isinstance(failure, Unavailable)
            return failure_outcome(self.rid, failure)
        if task.cancelled() and not self.context.is_stopped:
            return Outcome("failed", ErrorType.INTERNAL, "The engine raised CancelledError, but nobody cancelled it")
        return self._output.outcome()

    async def _report(self, outcome: Outcome) -> Ended | None:
        """Report the outcome to Redis. Return None when Redis does not answer for two leases."""
        retry_for_secs = 2 * self._settings.lease_secs
        try:
            ended = await self.sink.finish(self._output.with_figures(outcome), retry_for_secs)
            if ended.what == "incomplete":
                # Redis had confirmed tokens and lost them in a failover; no reader may be given a text with a gap.
                ended = await self.sink.finish(self._output.with_figures(STREAM_LOST), retry_for_secs)
            return ended
        except StoreUnavailable as failure:
            log.error(
                "the end of request %s could not be reported within %g seconds; the reaper decides about it: %s",
                self.rid,
                retry_for_secs,
                failure,
            )
            return None

    def _on_cancel(self) -> None:
        """Enforce a stop after STOP_GRACE_SECS and a kill at once."""
        if self.context.is_killed:
            self._cancel_engine()
        else:
            self._schedule("stop", self._settings.stop_grace_secs, self._on_stop_grace_over)

    def _cancel_engine(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._schedule("kill", self._settings.kill_grace_secs, self._on_kill_grace_over)

    def _on_stop_grace_over(self) -> None:
        if self.engine_runs:
            grace_secs = self._settings.stop_grace_secs
            log.info("the engine did not stop request %s within %g seconds and is cancelled", self.rid, grace_secs)
            self._cancel_engine()

    def _on_kill_grace_over(self) -> None:
        if self.engine_runs:
            self.stuck = True
            log.error(
                "the engine does not end request %s although it was killed %g seconds ago; its concurrency slot stays "
                "occupied until the engine ends or the worker is restarted",
                self.rid,
                self._settings.kill_grace_secs,
            )

    def _on_refused(self, why: Refusal) -> None:
        """End the engine: Redis refused its tokens, because the request has ended or belongs to another worker."""
        log.info("Redis refused tokens of request %s (%s); its engine is killed", self.rid, why)
        if why == "expired":  # the reaper decides about the request; a report that comes before it would take effect
            self.abandon()
            return
        self.sink.discard()
        if why == "gone":
            self.fail(ErrorType.STATE_LOST, "Redis lost the token stream; send the request again")
        self.context.kill()

    def _watch_inactivity(self) -> None:
        """Fail the attempt once no event has come for WORKER_INACTIVITY_SECS.

        The timer is set again only when it expires, so an event costs no timer. The time for which the event loop was
        late does not count: an event may have come meanwhile.
        """
        limit_secs = self._settings.worker_inactivity_secs
        if limit_secs <= 0:
            return
        now = self._loop.time()
        remaining_secs = self._output.last_event_at + limit_secs - now
        if remaining_secs < -_LATE_SECS:
            self._output.last_event_at, remaining_secs = now - limit_secs, _LATE_SECS
        if remaining_secs > 0:
            self._schedule("inactivity", remaining_secs, self._watch_inactivity)
        elif not self.context.is_killed:
            self.fail(
                ErrorType.RESPONSE_TIMEOUT, f"The engine was silent for {limit_secs:g} seconds (response timeout)"
            )

    def _schedule(self, name: str, delay_secs: float, callback: Callable[[], None]) -> None:
        """Call `callback` after `delay_secs`, in place of the earlier timer of the same name."""
        previous = self._timers.get(name)
        if previous is not None:
            previous.cancel()
        self._timers[name] = self._loop.call_later(delay_secs, callback)


def _decode(body: bytes) -> dict[str, Any]:
    """Return a call's body. Integers keep their value, however long they are."""
    exact = _LONG_INTEGER.search(body) is not None
    decoded: dict[str, Any] = json.loads(body) if exact else orjson.loads(body)
    return decoded
