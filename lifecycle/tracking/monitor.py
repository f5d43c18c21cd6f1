"""Watch one request on the frontend that owns it, until the request has ended.

The monitor follows tokens, errors, the end, cancels and inactivity. A token only moves a timestamp, which is compared
when the timer fires. However the request ends, its inflight guard is released exactly once.
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
from lifecycle.store.transitions import Store
from lifecycle.telemetry import request_log
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tokens.items import End
from lifecycle.tracking.inflight_guard import InflightGuard
from lifecycle.types import ErrorType, Labels, Limits, RequestRecord, Status

log = logging.getLogger(__name__)

_RETRY_SECS = 0.25  # a step that was due and failed is tried again after this time


class MonitorServices(NamedTuple):
    """Hold what all monitors of one frontend share."""

    store: Store
    metrics: Metrics
    record_polls: RateLimiter
    spawn: Spawn
    on_over: Callable[[StreamMonitor], None]  # called once for each monitor, when it no longer needs its feed
    on_webhook: Callable[[RequestRecord], None] = lambda _: None  # called at an end that a webhook reports


class StreamMonitor:
    """Observe a request's feed (`FeedObserver`). The feed must be pinned until `on_over` has been called.

    A monitor has one timer, re-armed only when it fires, and a task only while something is due.
    """

    def __init__(
        self,
        services: MonitorServices,
        feed: RequestFeed,
        labels: Labels,
        limits: Limits,
        span: RequestSpan,
        *,
        counted: bool = False,
        local: bool = False,
    ) -> None:
        """Prepare to observe the feed.

        `counted`: the end of this request has been counted by this process before, and Redis has lost it. `local`: the
        request runs in this process, which watches for its inactivity where it runs.
        """
        self.rid = feed.rid
        self.counted = counted
        self.labels = labels
        self.feed = feed
        self._services = services
        self._span = span
        self._metrics = services.metrics.of(labels)
        self._guard = InflightGuard(self._metrics)
        self._loop = feed.loop
        self._inactivity_secs = 0.0 if local else services.store.settings.frontend_inactivity_secs
        self._poll_secs = services.store.settings.sse_keepalive_secs
        self._over = False  # the monitor has ended, and ignores everything that follows
        self._checking = False  # a task is doing what is due
        self._stale = False  # the record must be read, because a push may have been lost
        now = self._loop.time()
        self._due = [now + s for s in (limits.queue_secs, limits.first_token_secs, limits.deadline_secs) if s > 0]
        self._polled_at = now
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, *, queued: bool) -> None:
        """Begin to observe the feed. `queued`: no worker has started the request yet."""
        self._guard.mark_queued(queued)
        if queued:
            self._span.queued()
        else:
            self._span.started()
        if self.feed.record is not None:  # the request has ended before it was known that this frontend owns it
            self.on_terminal(self.feed.record)
            return
        self.feed.observer = self
        self._arm()

    def on_tokens(self, count: int, gap_secs: float) -> None:
        """Count tokens and the waits between them. Of those that come together only the first has waited."""
        self._metrics.output_tokens.value += count
        if count > 1:
            self._metrics.token_gaps.observe(0.0, count - 1)
        if self.feed.number > count:  # before the very first token there is no gap between tokens
            self._metrics.token_gaps.observe(gap_secs)

    def on_started(self) -> None:
        """Begin to watch for inactivity."""
        self._guard.mark_queued(False)
        self._span.started()
        if self._inactivity_secs > 0:
            self._arm()

    def on_requeued(self) -> None:
        """Count the request as queued again."""
        self._guard.mark_queued(True)
        self._span.queued()

    def on_terminal(self, record: RequestRecord) -> None:
        """Count and log the request as its terminal record says."""
        self._close()
        if record.webhook:
            self._services.on_webhook(record)
        if self.counted:
            self._drop()
            return
        self.counted = True
        number = self.feed.number
        try:
            self._guard.mark(record)
            # What the engine reported beyond the events that were counted, or events in frames that were lost.
            self._metrics.output_tokens.value += max(0, record.output_tokens - number, record.stream_length - number)
            self._tell_end(record)
        finally:
            self._release()

    def lose(self, error_type: ErrorType, message: str) -> None:
        """End the request here without a terminal record: this replica is fenced, or Redis has lost the request."""
        self.feed.abort(error_type, message)
        if self._over:
            return
        self._close()
        if self.counted:
            self._drop()
            return
        self.counted = True
        try:
            self._guard.mark_error(error_type)
            self._tell_loss(error_type)
        finally:
            self._release()

    def break_off(self, error_type: ErrorType, message: str) -> None:
        """End the request here, and leave open who counts its end: this frontend is fenced. `settle` follows."""
        self.feed.abort(error_type, message)
        if not self._over:
            self._close()
            self._guard.drop()
            self._services.on_over(self)

    def settle(self, record: RequestRecord | None, error_type: ErrorType) -> None:
        """Count the end of a request that was broken off, with its terminal record or else with this error."""
        if self.counted:
            return
        self.counted = True
        error_type = error_type if record is None else ErrorType(record.error_type)
        self._metrics.count(error_type)
        if record is None:
            self._tell_loss(error_type)
        else:
            self._tell_end(record)

    def settle_elsewhere(self) -> None:
        """Count nothing: another frontend owns the request that was broken off here, and counts its end."""
        self._span.break_off("moved")

    def leave(self) -> None:
        """Stop monitoring: the request continues under another frontend, which counts its end."""
        if not self._over:
            self._close()
            self._drop()

    def _tell_end(self, record: RequestRecord) -> None:
        """Put a terminal record into the histograms, the span and the log."""
        self._metrics.observe_end(record)
        self._span.end(record)
        request_log.ended(record, self._span.trace_id)

    def _tell_loss(self, error_type: ErrorType) -> None:
        """Put an end without a record into the span and the log."""
        self._span.break_off(error_type)
        request_log.lost(self.rid, self.labels, error_type, self._span.trace_id)

    def _drop(self) -> None:
        """Release the feed and the gauges without counting an end."""
        self._guard.drop()
        self._span.break_off("moved")
        self._release()

    def end_with(self, record: RequestRecord) -> None:
        """End the request with a terminal record that was read from Redis; one that was pushed before takes effect."""
        if self.feed.record is None:
            self.feed.take_terminal(
                record,
                End(
                    record.status,
                    record.error_type,
                    record.error_message or "",
                    record.finish_reason or "",
                    record.stream_length,
                    record.input_tokens,
                    record.usage,
                    record.error_detail,
                ),
            )

    def watch_until(self, delay_secs: float) -> None:
        """Sweep the request's shard after `delay_secs`, when something falls due in Redis: a reader's grace, say."""
        self._due.append(self._loop.time() + delay_secs)
        self._arm()

    def mark_stale(self) -> None:
        """Read the record now: a push may have been lost."""
        self._stale = True
        self._begin_check()

    async def recheck(self) -> None:
        """Read the record and act on it. A lost message so costs seconds, not a gauge that never falls.

        Raises StoreUnavailable, RedisError.
        """
        self._stale = False
        self._postpone_poll()
        record = await self._services.store.read(self.rid)
        if record is None:
            self.lose(ErrorType.STATE_LOST, "Redis lost the request")
        elif record.status.terminal:
            self.end_with(record)
        elif record.status is Status.RUNNING and not self.feed.started:
            self.feed.take_started()
        elif record.status is Status.QUEUED and self.feed.started:
            self.feed.take_requeued()

    def _close(self) -> None:
        self._over = True
        self._disarm()
        self.feed.observer = None

    def _release(self) -> None:
        self._guard.release()
        self._services.on_over(self)

    def _inactive_at(self) -> float:
        """Return the loop time at which the worker has been silent for too long.

        Never once the stream is closed: a pending kill waits for its worker's confirmation instead.
        """
        if self._inactivity_secs <= 0 or not self.feed.started or self.feed.end is not None:
            return float("inf")
        return self.feed.active_at + self._inactivity_secs

    def _poll_at(self) -> float:
        return max(self._polled_at, self.feed.active_at) + self._poll_secs

    def _postpone_poll(self) -> None:
        polls = self._services.record_polls
        self._polled_at = self._loop.time() + polls.next_secs(self._poll_secs) - self._poll_secs

    def _arm(self) -> None:
        if not self._over and not self._checking:
            self._disarm()
            self._timer = self._loop.call_at(min(self._poll_at(), self._inactive_at(), *self._due), self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        due, poll = now >= min(self._inactive_at(), *self._due, float("inf")), False
        if not due and now >= self._poll_at():
            poll = self._services.record_polls.take()
            self._postpone_poll()
        if due or poll:
            self._begin_check()
        else:
            self._arm()

    def _begin_check(self) -> None:
        if not self._over and not self._checking:
            self._checking = True
            self._disarm()
            self._services.spawn(self._check(), "monitor")

    async def _check(self) -> None:
        """Do what is due, or else read the record. A step that fails is due again soon."""
        try:
            await self._do_what_is_due()
        except StoreUnavailable:
            await asyncio.sleep(_RETRY_SECS)  # the lease decides how long Redis is waited for
        except RedisError:
            log.exception("Redis refused a check of %s", self.rid)
            await asyncio.sleep(_RETRY_SECS)
        finally:
            self._checking = False
            if self._stale:
                self._begin_check()
            else:
                self._arm()

    async def _do_what_is_due(self) -> None:
        now, store = self._loop.time(), self._services.store
        if now >= self._inactive_at():
            await self._fail_inactive()
            return
        if any(due <= now for due in self._due):
            await store.sweep(store.keys.shard_of(self.rid))
            self._due = [due for due in self._due if due > now]
        await self.recheck()

    async def _fail_inactive(self) -> None:
        """Fail the request: its worker has been silent for twice as long as a worker itself allows, so it hangs."""
        message = f"The worker was silent for {self._inactivity_secs:g} seconds (response timeout)"
        ended = await self._services.store.fail(self.rid, ErrorType.RESPONSE_TIMEOUT, message, seen=self.feed.number)
        if ended.what == "unknown":
            self.lose(ErrorType.STATE_LOST, "Redis lost the request")
        elif ended.record is not None:
            self.end_with(ended.record)
        else:  # Redis has tokens that the inbox has not delivered, or a kill waits for its worker
            self.feed.active_at = self._loop.time()
