"""The stream monitor: watches one request on the frontend that owns it, until the request has ended.

It sees tokens, the engine's error, the end, a cancel, and inactivity. A token only moves a timestamp; the timer is
looked at when it fires. Whatever ends the request, the inflight guard is released once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from redis.exceptions import RedisError

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.aio.tasks import Spawn
from lifecycle.errors import StoreUnavailable
from lifecycle.store.scripts import Store
from lifecycle.telemetry import request_log
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.feed import Feed
from lifecycle.tokens.history import End
from lifecycle.tracking.inflight_guard import InflightGuard
from lifecycle.types import ErrorType, Labels, RequestRecord, Status

log = logging.getLogger(__name__)

_RETRY_SECS = 0.25  # before something that was due and could not be done is tried again


class Limits(NamedTuple):
    """One request's time limits in seconds; 0 is off. All but inactivity run from admission."""

    queue_secs: float = 0.0
    first_token_secs: float = 0.0
    deadline_secs: float = 0.0


class StreamMonitor:
    """`feed` must be pinned until `on_over` has been called, which happens once.

    It has a timer, re-armed lazily, and a task only while something is due.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        feed: Feed,
        guard: InflightGuard,
        labels: Labels,
        limits: Limits,
        span: RequestSpan,
        looks: RateLimiter,
        spawn: Spawn,
        on_over: Callable[[StreamMonitor], None],
    ) -> None:
        self.rid = feed.rid
        self.labels = labels
        self.feed = feed
        self.guard = guard
        self.span = span
        self._store = store
        self._looks = looks
        self._metrics = metrics
        self._spawn = spawn
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._inactivity_secs = store.settings.frontend_inactivity_secs
        self._look_secs = store.settings.sse_keepalive_secs
        self._over = False
        self._checking = False
        self._stale = False
        self._tokens = metrics.output_tokens.labels(labels.model)
        self._token_gaps = metrics.token_gaps.labels(labels.model)
        now = self._loop.time()
        self._due = [now + s for s in (limits.queue_secs, limits.first_token_secs, limits.deadline_secs) if s > 0]
        self._looked_at = now
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self.feed.record is not None:  # it came ahead of the word that the request is this frontend's
            self._end(self.feed.record)
            return
        self.feed.on_tokens = self._on_tokens
        self.feed.on_started = self._on_started
        self.feed.on_requeued = self._on_requeued
        self.feed.on_terminal = self._end
        self._arm()

    def _end(self, record: RequestRecord) -> None:
        """As Redis has it."""
        self._close()
        try:
            self.guard.mark(record)
            self._tokens.inc(max(0, record.output_tokens - self.feed.number))  # in frames that got lost
            self._metrics.observe_end(record)
            self.span.end(record)
            request_log.ended(record, self.span.trace_id)
        finally:
            self._release()

    def lose(self, error_type: ErrorType, message: str) -> None:
        """End here without Redis's word: this replica is fenced, or Redis has lost the request."""
        self.feed.lose(error_type, message)
        if self._over:
            return
        self._close()
        try:
            self.guard.mark_error(error_type)
            self.span.break_off(error_type)
            request_log.lost(self.rid, self.labels, error_type, self.span.trace_id)
        finally:
            self._release()

    def leave(self) -> None:
        """The request goes on under another frontend."""
        if not self._over:
            self._close()
            self.guard.drop()
            self.span.break_off("moved")
            self._release()

    def _close(self) -> None:
        """Nothing more is watched."""
        self._over = True
        self._disarm()
        self.feed.on_tokens = self.feed.on_started = self.feed.on_requeued = self.feed.on_terminal = None

    def _release(self) -> None:
        self.guard.release()
        self._on_over(self)

    def watch_until(self, delay_secs: float) -> None:
        """Something falls due in Redis then: a reader's grace, say."""
        self._due.append(self._loop.time() + delay_secs)
        self._arm()

    def mark_stale(self) -> None:
        """Something may have been missed: look at the record now."""
        self._stale = True
        self._begin_check()

    def _on_tokens(self, count: int, gap_secs: float) -> None:
        """Together: the first has waited, unless it is the first of all, and the others have not."""
        self._tokens.value += count
        if count > 1:
            self._token_gaps.observe(0.0, count - 1)
        if self.feed.number > count:
            self._token_gaps.observe(gap_secs)

    def _on_started(self) -> None:
        self.guard.mark_queued(False)
        self.span.started()
        if self._inactivity_secs > 0:
            self._arm()  # the timeout runs from here

    def _on_requeued(self) -> None:
        self.guard.mark_queued(True)
        self.span.queued()

    def _inactive_at(self) -> float:
        """When the worker has been silent for too long; a pending kill waits for its confirmation instead."""
        if self._inactivity_secs <= 0 or not self.feed.started or self.feed.end is not None:
            return float("inf")
        return self.feed.active_at + self._inactivity_secs

    def _look_at(self) -> float:
        return max(self._looked_at, self.feed.active_at) + self._look_secs

    def _put_off_look(self) -> None:
        self._looked_at = self._loop.time() + self._looks.next_secs(self._look_secs) - self._look_secs

    def _arm(self) -> None:
        if not self._over and not self._checking:
            self._disarm()
            self._timer = self._loop.call_at(min(self._look_at(), self._inactive_at(), *self._due), self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        due, look = now >= min(self._inactive_at(), *self._due, float("inf")), False
        if not due and now >= self._look_at():
            look = self._looks.take()
            self._put_off_look()
        if due or look:
            self._begin_check()
        else:
            self._arm()

    def _begin_check(self) -> None:
        if not self._over and not self._checking:
            self._checking = True
            self._disarm()
            self._spawn(self._check(), "monitor")

    async def _check(self) -> None:
        """Do what is due, or else look. What fails is due again soon."""
        try:
            await self._do_what_is_due()
        except StoreUnavailable:
            await asyncio.sleep(_RETRY_SECS)  # the lease decides when to stop waiting for Redis
        except RedisError:
            log.exception("what is due for %s was refused", self.rid)
            await asyncio.sleep(_RETRY_SECS)
        finally:
            self._checking = False
            if self._stale:
                self._begin_check()
            else:
                self._arm()

    async def _do_what_is_due(self) -> None:
        now = self._loop.time()
        if now >= self._inactive_at():
            await self._give_up()
            return
        if any(due <= now for due in self._due):
            await self._store.sweep(self._store.keys.shard_of(self.rid))
            self._due = [due for due in self._due if due > now]
        await self.look()

    async def _give_up(self) -> None:
        """Silence at twice the worker's own limit: the worker hangs. Releases the gauge and kills the request."""
        message = f"The worker was silent for {self._inactivity_secs:g} seconds (response timeout)"
        ended = await self._store.fail(self.rid, ErrorType.RESPONSE_TIMEOUT, message, seen=self.feed.number)
        if ended.what == "unknown":
            self.lose(ErrorType.STATE_LOST, "Redis lost the request")
        elif ended.record is not None:
            self.end_with(ended.record)
        else:  # tokens came that the inbox has not brought, or a kill waits for its worker
            self.feed.active_at = self._loop.time()

    async def look(self) -> None:
        """Read the record: a message that got lost costs seconds, not a gauge that never falls."""
        self._stale = False
        self._put_off_look()
        record = await self._store.read(self.rid)
        if record is None:
            self.lose(ErrorType.STATE_LOST, "Redis lost the request")
        elif record.status.terminal:
            self.end_with(record)
        elif record.status is Status.RUNNING and not self.feed.started:
            self.feed.take_started()

    def end_with(self, record: RequestRecord) -> None:
        """The record is terminal, whichever way that was learnt."""
        if self.feed.record is None:
            self.feed.take_terminal(
                record,
                End(
                    record.status,
                    record.error_type,
                    record.error_message or "",
                    record.finish_reason or "",
                    record.output_tokens,
                ),
            )
