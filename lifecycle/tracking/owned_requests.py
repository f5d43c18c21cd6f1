"""Hold the requests that one frontend owns: those it admitted, and those it took over from an expired frontend."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.aio.tasks import Spawn
from lifecycle.errors import STREAM_ENDED, StoreUnavailable
from lifecycle.store.results import Outcome, StartedAttempt
from lifecycle.store.transitions import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tracking.admission import Rejected
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.fenced_requests import FencedRequests
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.local_runs import LocalRuns, NoLocalRuns
from lifecycle.tracking.monitor import MonitorServices, StreamMonitor
from lifecycle.tracking.readers import Readers
from lifecycle.types import CancelMode, ErrorType, Labels, Limits, OnDisconnect, RequestRecord, Status

log = logging.getLogger(__name__)

_REMEMBERED = 10_000  # ends, and refused calls
_ASKED_AT_ONCE = 100


class OwnedRequests:
    """Monitor each owned request until it has ended here, and remember which ones are being admitted."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        state: FrontendState,
        readers: Readers,
        spawn: Spawn,
        on_webhook: Callable[[RequestRecord], None] = lambda _: None,
        local_runs: LocalRuns | None = None,
        on_released: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_webhook` is called with the record of each request that has ended here and that a webhook reports.

        `local_runs` runs those that were tracked in this process. `on_released` is called with the id of each that is
        no longer owned.
        """
        self._local_runs = local_runs or NoLocalRuns()
        self._store = store
        self._state = state
        self._readers = readers
        self._spawn = spawn
        self._on_released = on_released
        self._services = MonitorServices(store, metrics, readers.record_polls, spawn, self._release, on_webhook)
        self._monitors: dict[str, StreamMonitor] = {}
        self._by_shard: list[set[str]] = [set() for _ in range(store.settings.shards)]
        # The last ones that have ended here, the latest last, with their last starts; None when that is not known.
        self._ended: OrderedDict[str, StartedAttempt | None] = OrderedDict()
        self._refused: OrderedDict[str, None] = OrderedDict()  # calls whose admission Redis did not confirm
        self._asking = 0  # calls among them after which Redis is asked at once
        self._admitting: dict[str, list[asyncio.Event]] = {}  # those are set once the admission has been decided

    def __len__(self) -> int:
        return len(self._monitors)

    def __contains__(self, rid: str) -> bool:
        return rid in self._monitors

    def held(self, shard: int) -> Collection[str]:
        """Return the ids of the owned requests of one shard."""
        return self._by_shard[shard]

    def get(self, rid: str) -> StreamMonitor | None:
        """Return the request's monitor; None when the request is not owned."""
        return self._monitors.get(rid)

    @contextmanager
    def admitting(self, rid: str) -> Iterator[None]:
        """Mark a request as being admitted. Raises Rejected when it is owned or being admitted already.

        When Redis does not answer, the call is refused, and the request is cancelled if it was admitted nevertheless.
        """
        if rid in self._monitors or rid in self._admitting:
            raise Rejected("exists")
        self._admitting[rid] = []
        try:
            yield
        except StoreUnavailable:
            self._refused[rid] = None
            if len(self._refused) > _REMEMBERED:
                self._refused.popitem(last=False)
            if self._asking < _ASKED_AT_ONCE:  # heartbeats find the others
                self._spawn(self._end_refused(rid), "refused call")
            raise
        else:
            self._refused.pop(rid, None)
        finally:
            for decided in self._admitting.pop(rid):
                decided.set()

    async def wait_for_admission(self, rid: str) -> None:
        """Wait while the request is being admitted here."""
        while (waiting := self._admitting.get(rid)) is not None:
            decided = asyncio.Event()
            waiting.append(decided)
            await decided.wait()

    def own(
        self,
        feed: RequestFeed,
        labels: Labels,
        limits: Limits,
        span: RequestSpan,
        *,
        queued: bool,
        counted: bool = False,
        local: bool = False,
    ) -> StreamMonitor:
        """Monitor a request. The caller has pinned `feed`; it is unpinned when the request has ended.

        `counted`: its end has been counted here before. `local`: it runs in this process.
        """
        monitor = StreamMonitor(self._services, feed, labels, limits, span, counted=counted, local=local)
        self._monitors[feed.rid] = monitor
        self._by_shard[self._store.keys.shard_of(feed.rid)].add(feed.rid)
        monitor.begin(queued=queued)
        return monitor

    def _release(self, monitor: StreamMonitor) -> None:
        self._monitors.pop(monitor.rid, None)
        self._by_shard[self._store.keys.shard_of(monitor.rid)].discard(monitor.rid)
        monitor.feed.unpin()
        self._local_runs.let_go(monitor.rid)
        self._on_released(monitor.rid)
        if monitor.counted:
            record = monitor.feed.record
            self.remember_end(monitor.rid, StartedAttempt(record.attempt, record.start_nonce) if record else None)

    def remember_end(self, rid: str, started: StartedAttempt | None = None) -> None:
        """Remember that the end of a request has been counted here, and its last start if that is known."""
        self._ended[rid] = started
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def take_over(self, rids: Sequence[str]) -> None:
        """Own what Redis counts as this frontend's: the old owner has expired, or an admission's reply was lost.

        Requests that are being admitted are left out: the reply is still on its way, and would count them again.
        """
        for rid in rids:
            if rid not in self._monitors and rid not in self._admitting:
                self._spawn(self._take_over(rid), "take over")

    async def _end_refused(self, rid: str) -> None:
        """End a request whose call was refused, as soon as Redis answers and if it was admitted nevertheless."""
        self._asking += 1
        try:
            await self._take_over(rid)
        finally:
            self._asking -= 1

    async def _take_over(self, rid: str) -> None:
        record = await self._store.read(rid, retry_for_secs=self._store.settings.lease_secs)
        if record is None or record.status.terminal or record.frontend != self._state.id_for(rid) or rid in self:
            return
        if rid in self._admitting:
            return
        ended_before = rid in self._ended
        if ended_before:
            log.warning("%s has ended here before, and Redis has lost its end", rid)
            told, shown = self._ended[rid], StartedAttempt(record.attempt, record.start_nonce)
            if record.status is Status.QUEUED or (told is not None and told != shown):  # it must not run again
                await self._end_again(rid)
                return
        elif record.is_local:
            await self._end_unstarted(record)
            return
        else:
            log.info("%s continues under this frontend", rid)
        feed = self._readers.feed(rid)
        feed.pin()
        feed.started = record.started_at is not None
        feed.number = max(feed.number, record.stream_length)
        # Its limits are stored in Redis, where the sweeps find them.
        span = RequestSpan(rid, record.counted_as, record.traceparent)
        queued = record.status is Status.QUEUED
        monitor = self.own(feed, record.counted_as, Limits(), span, queued=queued, counted=ended_before)
        if ended_before:
            # Its worker reports the end again with its next heartbeat, if it lives.
            await asyncio.sleep(self._store.settings.lease_secs)
            await self._end_again(rid)
            return
        try:
            await self._end_or_keep(monitor, record)
        except StoreUnavailable:
            monitor.leave()  # a heartbeat finds it again
            raise

    async def _end_or_keep(self, monitor: StreamMonitor, record: RequestRecord) -> None:
        """Cancel a request that nobody waits for. Raises StoreUnavailable."""
        rid, feed = record.id, monitor.feed
        if await self._is_refused(record):  # whatever its client wants after a disconnect
            reason, lease_secs = "Its call was refused, as Redis did not answer", self._store.settings.lease_secs
            await self._store.cancel(
                rid, CancelMode.KILL, reason, by="disconnect", via=self._state.id, retry_for_secs=lease_secs
            )
            return
        if record.on_disconnect == OnDisconnect.CANCEL and not feed.readers:
            disconnection = await self._readers.reports.closed(
                feed, ConnectionStatus.CLOSED_UNEXPECTEDLY, admitting=False
            )
            if disconnection.what == "grace":
                monitor.watch_until(disconnection.grace_secs)

    async def _is_refused(self, record: RequestRecord) -> bool:
        """Return whether the call that brought the request was refused here, and cannot be repeated by its key.

        A request that has come from another frontend was admitted there under the same id. Raises StoreUnavailable.
        """
        if record.id not in self._refused or record.idempotency:
            return False
        found = await self._store.read_timeline(record.id, retry_for_secs=self._store.settings.lease_secs)
        return found is None or all(step["what"] != "frontend_changed" for step in found.steps)

    async def _end_unstarted(self, record: RequestRecord) -> None:
        """End a request that was to run in this process and does not, as the reply to its start was lost.

        Raises StoreUnavailable.
        """
        lost = Outcome("failed", ErrorType.WORKER_LOST, STREAM_ENDED)
        await self._store.finish(
            record.id,
            self._state.id_for(record.id),
            record.attempt,
            lost,
            record.stream_length,
            retry_for_secs=self._store.settings.lease_secs,
        )

    async def _end_again(self, rid: str) -> None:
        """Fail a request whose end Redis has lost, unless it has ended meanwhile. Raises StoreUnavailable."""
        message = "Redis lost the end of this request, which was told before"
        await self._store.fail(rid, ErrorType.STATE_LOST, message, retry_for_secs=self._store.settings.lease_secs)

    def mark_stale(self, shard: int) -> None:
        """Read the record of each owned request of the shard: what was pushed of it may have been lost."""
        for rid in self._by_shard[shard]:
            self._monitors[rid].mark_stale()

    def check_ended(self, shard: int) -> None:
        """Look whether Redis has lost ends that were told here, and end those requests again."""
        rids = [rid for rid in self._ended if self._store.keys.shard_of(rid) == shard]
        self._spawn(_for_each(self._check_ended, rids), "ended")

    async def _check_ended(self, rid: str) -> None:
        """Take over a request that Redis shows as inflight here although it has ended. Raises StoreUnavailable."""
        if rid not in self._admitting:
            await self._take_over(rid)

    def check_lost(self, rids: Sequence[str]) -> None:
        """Find out what has become of requests that Redis does not count as this frontend's.

        They are read in a task, so that no heartbeat waits for it, and many at once.
        """
        self._spawn(_for_each(self._check_lost, [rid for rid in rids if rid in self._monitors]), "lost requests")

    async def _check_lost(self, rid: str) -> None:
        """Let go of a request that has ended, moved, or is lost. Raises StoreUnavailable."""
        try:
            record = await self._store.read(rid, retry_for_secs=self._store.settings.lease_secs)
        except RedisError:  # a malformed record must not keep the other requests from being checked
            log.exception("the record of %s cannot be read", rid)
            return
        monitor = self._monitors.get(rid)
        if monitor is None:
            return
        if record is None:
            monitor.lose(ErrorType.STATE_LOST, "Redis lost the request")
        elif record.status.terminal:
            monitor.end_with(record)
        elif record.frontend != self._state.id_for(rid):
            monitor.leave()

    async def leave_live_requests(self) -> None:
        """Stop monitoring what has not ended: it continues under a new owner, who counts its end.

        Called after this frontend has left. The records are read many at once. Raises StoreUnavailable.
        """
        await _for_each(self._leave_if_live, list(self._monitors))

    async def _leave_if_live(self, rid: str) -> None:
        record = await self._store.read(rid)
        monitor = self._monitors.get(rid)
        if monitor is not None and record is not None and not record.status.terminal:
            monitor.leave()

    def break_off(self, shard: int, fenced_id: str, error_type: ErrorType, message: str) -> None:
        """End every owned request of a shard, where this frontend's id was fenced.

        Each is counted once it is known by whom.
        """
        monitors = [self._monitors[rid] for rid in self._by_shard[shard]]
        for monitor in monitors:
            monitor.break_off(error_type, message)
        if monitors:
            fenced = FencedRequests(
                self._store, fenced_id, monitors, error_type, self._was_taken_over, self.remember_end
            )
            self._spawn(fenced.settle(), "fenced requests")

    def _was_taken_over(self, rid: str) -> bool:
        """Return whether a request that was broken off goes on here, or has ended and was counted here."""
        return rid in self._monitors or rid in self._ended

    def lose_all(self, error_type: ErrorType, message: str) -> None:
        """End every owned request here with an error, whatever its record says."""
        for monitor in list(self._monitors.values()):
            monitor.lose(error_type, message)


async def _for_each(check: Callable[[str], Awaitable[None]], rids: Sequence[str]) -> None:
    """Check many requests, a batch at a time. Raises StoreUnavailable."""
    await tasks.in_batches(check, rids)
