"""Keep one table of the requests that a worker handles, from their start to the end of their engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from lifecycle.aio import tasks
from lifecycle.errors import StoreError, StoreUnavailable
from lifecycle.execution.attempt import Attempt
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.execution.declarations import accepted_parameters, is_resumable
from lifecycle.execution.engine import Engine
from lifecycle.execution.engine_health import EngineHealth
from lifecycle.execution.hand_over import HandOver
from lifecycle.execution.offered_endpoints import offered_argument
from lifecycle.execution.outcomes import STREAM_LOST
from lifecycle.execution.preemption import Preemption
from lifecycle.execution.remembered_ends import RememberedEnds, Report
from lifecycle.replica.lease import Lease
from lifecycle.store.results import START_LOST, Ended, Offer, Run, Start
from lifecycle.store.transitions import Store
from lifecycle.telemetry import tracing
from lifecycle.telemetry.tracing import AttemptSpan
from lifecycle.tokens.history import read_emitted
from lifecycle.tokens.writer import TokenWriter
from lifecycle.types import CancelMode, ErrorType, Event

log = logging.getLogger(__name__)

_ENDING_SECS = 1.0  # for the tasks of requests to end when they are cancelled
_MOVED = ("requeued", "ended")  # outcomes of Store.requeue after which the request is not this worker's any more


@dataclass(slots=True, eq=False)
class RunInProgress:
    """Describe one start of a request while its task handles it; it occupies one concurrency slot.

    - `run`: what was taken, by this worker as `worker`, the id under which the shard knew it
    - `cancels`: the modes of the cancels that came since the take was sent; its attempt gets them
    - `attempt`: the attempt that was started; None before its engine runs and after it has ended
    - `task`: runs the engine until it has ended and Redis knows the outcome
    """

    run: Run
    worker: str
    cancels: set[CancelMode]
    attempt: Attempt | None = None
    task: asyncio.Task[None] = field(init=False)


class RunningRequests:
    """Own the table of running requests and the tasks that handle them.

    A request usually has one run in progress. It has more when it was queued again while the engine of an earlier
    attempt does not end: that attempt is abandoned, and its task waits for its engine.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        health: EngineHealth,
        slots: ConcurrencySlots,
        lease: Lease,
        writer: TokenWriter,
        on_first_event: Callable[[float], None],
    ) -> None:
        """Start with an empty table.

        `on_first_event(secs)` is called when an attempt has yielded its first event, so many seconds after its engine
        was called.
        """
        self._lease = lease
        self._writer = writer
        self._on_first_event = on_first_event
        self._store = store
        self._settings = store.settings
        self._engine = engine
        self._health = health
        self.hand_over = HandOver(store, health)
        self.ends = RememberedEnds(store)
        self._slots = slots
        self.preemption = Preemption(slots, self.current_attempts, is_on=self._settings.preempt)
        self._runs: dict[str, list[RunInProgress]] = {}
        # The latest attempts, until their engines end, by shard: a heartbeat reads their number in constant time.
        self._current: list[dict[str, Attempt]] = [{} for _ in range(store.settings.shards)]

    def __contains__(self, rid: str) -> bool:
        """Return whether the request is handled here, with or without an attempt."""
        return rid in self._runs

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the requests that are handled here."""
        return iter(tuple(self._runs))

    def held(self, shard: int) -> Collection[str]:
        """Return the ids of the shard's requests that have a current attempt: a live view, not a copy."""
        return self._current[shard].keys()

    def current(self, rid: str) -> Attempt | None:
        """Return the latest attempt of the request, or None when none runs."""
        return self._current[self._store.keys.shard_of(rid)].get(rid)

    def current_attempts(self) -> list[Attempt]:
        """Return the latest attempt of each request that runs."""
        return [attempt for of_shard in self._current for attempt in of_shard.values()]

    @property
    def stuck(self) -> int:
        """Return how many engines were killed and have not ended within KILL_GRACE_SECS."""
        return sum(progress.attempt.stuck for progress in self._in_progress() if progress.attempt is not None)

    def offer(self) -> Offer:
        """Return what the engine offers at the moment to the requests that are taken."""
        return Offer(is_resumable(self._engine), accepted_parameters(self._engine), offered_argument(self._engine))

    def launch(self, run: Run, worker: str, moved: Attempt | None, cancels: set[CancelMode]) -> None:
        """Run a request in a task of its own, as `worker`: the id under which the shard knows this worker.

        A concurrency slot has been occupied for it, which the task releases at its end. With `moved` it is that
        attempt's slot: the task first moves the attempt's request back to its queue. `cancels` are of this start.
        """
        progress = RunInProgress(run, worker, cancels)
        self._runs.setdefault(run.rid, []).append(progress)
        handling = self._handle(progress, moved)
        progress.task = asyncio.get_running_loop().create_task(handling, name=f"request {run.rid}")

    def cancel(self, rid: str, mode: CancelMode) -> None:
        """Cancel each attempt of the request that runs or is about to run."""
        for progress in self._runs.get(rid, ()):
            if progress.attempt is not None:
                progress.attempt.cancel(mode)
            else:
                progress.cancels.add(mode)

    def check_streams(self, shard: int) -> None:
        """Let each attempt of the shard check that Redis has its last tokens before it appends more."""
        for attempt in self._current[shard].values():
            attempt.sink.recheck()

    def abandon(self, shard: int) -> None:
        """End the engines of a shard's requests without reporting outcomes: this worker's lease there has expired."""
        for attempt in list(self._current[shard].values()):
            attempt.abandon()

    async def move_or_fail_all(self) -> None:
        """Requeue each request that another worker can continue, and fail the others with `worker_lost`."""
        await tasks.in_batches(self._move_or_fail, self.current_attempts())

    async def wait(self, timeout_secs: float) -> None:
        """Wait until all tasks of the moment have ended, `timeout_secs` at most."""
        if pending := [progress.task for progress in self._in_progress()]:
            await asyncio.wait(pending, timeout=timeout_secs)

    async def end(self) -> list[str]:
        """Cancel the tasks that are left, and return the ids of the requests whose engines do not end."""
        left = self._in_progress()
        attempts = [progress.attempt for progress in left if progress.attempt is not None]
        await tasks.end([progress.task for progress in left], _ENDING_SECS)
        return [attempt.rid for attempt in attempts if attempt.engine_runs]

    def _in_progress(self) -> list[RunInProgress]:
        return [progress for runs in self._runs.values() for progress in runs]

    async def _handle(self, progress: RunInProgress, moved: Attempt | None) -> None:
        """Handle one start of a request to its end, then take it out of the table and release its slot."""
        run, worker = progress.run, progress.worker
        rid = run.rid
        try:
            if moved is not None:
                await self._preempt(moved, run)
            attempt = await self._prepare(progress)
            if attempt is not None:
                await self._run(progress, attempt)
        except StoreUnavailable as failure:
            log.warning("request %s could not be run and is queued again: %s", rid, failure)
            with suppress(StoreError):  # otherwise a later heartbeat or the reaper does it
                await self.give_back(run, worker)
        except Exception:
            log.exception("request %s failed in worker %s because of an internal error", rid, worker)
        finally:
            runs = self._runs[rid]
            runs.remove(progress)
            if not runs:
                del self._runs[rid]
            self._slots.release()

    async def give_back(self, run: Run, worker: str) -> None:
        """Queue a request again that was taken and does not run; no attempt is used up. Raises StoreUnavailable."""
        retry_for_secs = self._settings.lease_secs
        await self._store.requeue(run.rid, worker, run.start.attempt, retry_for_secs=retry_for_secs)

    async def _preempt(self, attempt: Attempt, run: Run) -> None:
        """Move an attempt's request back to its queue for a better one, and wait until its slot is free.

        Raise StoreUnavailable when Redis does not answer, or when the engine does not end.
        """
        rid, priority = attempt.rid, run.start.priority
        handling = [progress.task for progress in self._runs.get(rid, ()) if progress.attempt is attempt]
        outcome = await self._requeue(attempt, preempted_by=priority, retry_for_secs=self._settings.redis_timeout_secs)
        log.info("request %s makes room for %s of priority %d: %s", rid, run.rid, priority, outcome)
        if handling and (await asyncio.wait(handling, timeout=self._settings.kill_grace_secs))[1]:
            raise StoreUnavailable(f"the engine of request {rid} does not end, whose slot it was to get")

    async def _prepare(self, progress: RunInProgress) -> Attempt | None:
        """Return the attempt that is to run, None if there is none. Raise StoreUnavailable."""
        run, worker = progress.run, progress.worker
        rid, start = run.rid, run.start
        earlier = self.current(rid)
        if earlier is not None:
            # Redis queued the request again while that attempt ran, so nothing that its engine yields counts any more.
            log.warning("request %s was queued again while attempt %d runs here", rid, earlier.context.attempt)
            earlier.abandon()
            if await self.report_lost_start(earlier):
                return None
        if await self.ends.end_restarted(rid, worker, start) is not None:
            log.warning("request %s has ended here before, and Redis has lost its end and its start", rid)
            return None
        emitted = await self._emitted(rid, worker, start)
        if emitted is None:
            return None
        attempt = Attempt(rid, start, self._engine, self._writer, self._settings, emitted, self._on_first_event)
        for mode in (*progress.cancels, start.cancel_mode):
            if mode:
                attempt.cancel(mode)
        return attempt

    async def _run(self, progress: RunInProgress, attempt: Attempt) -> None:
        """Run an attempt as the current one of its request, inside a span."""
        run, context = progress.run, attempt.context
        rid, current = run.rid, self._current[attempt.sink.shard]
        progress.attempt = current[rid] = attempt
        self.preemption.note_change()
        span = AttemptSpan(rid, run.model, progress.worker, run.start)
        context.traceparent = span.traceparent
        if tracing.is_on():
            context.add_listener(lambda: span.cancelled("kill" if context.is_killed else "stop"))
        ended: Ended | None = None
        try:
            ended = await attempt.run()
            if ended is not None and ended.what in ("done", "already") and attempt.sink.reported is not None:
                self.ends.remember(rid, Report(ended, attempt.sink.reported))
            if ended is not None and ended.what in ("already", "fenced", "unknown"):
                await self.report_lost_start(attempt, ended)
            if attempt.unavailable is not None:
                await self.hand_over.requeue_or_fail(run, progress.worker, attempt.unavailable)
            elif attempt.broke_off:
                self._health.suspect()
        finally:
            span.end(ended)
            progress.attempt = None
            if current.get(rid) is attempt:
                del current[rid]
            self.preemption.note_change()

    async def report_lost_start(self, attempt: Attempt, ended: Ended | None = None) -> bool:
        """Report that Redis may have lost the start of an attempt whose tokens readers may have.

        `ended` is the answer to its end. Return whether the request has ended because of it. Raises StoreUnavailable.
        """
        started, record = attempt.sink.started, ended.record if ended is not None else None
        if not attempt.sink.has_sent or (record is not None and record.start_nonce == started.nonce):
            return False
        reported = await self._store.report_lost_start(
            attempt.rid, started, START_LOST, retry_for_secs=self._settings.lease_secs
        )
        if reported.what != "known":
            log.warning("Redis has lost the start of request %s here, which may run elsewhere", attempt.rid)
        return reported.what in ("done", "already")

    async def _emitted(self, rid: str, worker: str, start: Start) -> Sequence[Event] | None:
        """Return the events of earlier attempts, `start.base` of them.

        Return None, after failing the request with `state_lost`, when Redis has lost some of them.
        """
        if start.base == 0:
            return []
        retry_for_secs = self._settings.lease_secs
        emitted = await read_emitted(self._store, rid, start.base, retry_for_secs)
        if emitted is None:
            await self._store.finish(rid, worker, start.attempt, STREAM_LOST, start.base, retry_for_secs=retry_for_secs)
        return emitted

    async def _move_or_fail(self, attempt: Attempt) -> None:
        if attempt.can_move and not attempt.context.is_stopped:
            with suppress(StoreError):
                if await self._requeue(attempt) in _MOVED:
                    return
        attempt.fail(
            ErrorType.WORKER_LOST, "The worker shut down before the generation completed; send the request again"
        )

    async def _requeue(self, attempt: Attempt, *, preempted_by: int | None = None, retry_for_secs: float = 0.0) -> str:
        """Move the attempt's request back to its queue, and abandon the attempt if Redis does so. See Store.requeue."""
        rid = attempt.rid
        outcome = await self._store.requeue(
            rid,
            self._lease.id_for(rid),
            attempt.context.attempt,
            preempted_by=preempted_by,
            retry_for_secs=retry_for_secs,
        )
        if outcome in _MOVED:
            attempt.abandon()
        return outcome
