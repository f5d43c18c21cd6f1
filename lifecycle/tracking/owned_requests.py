"""The requests one frontend owns: admitted here, or inherited from a frontend that died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from redis.exceptions import RedisError

from lifecycle.aio.tasks import Spawn
from lifecycle.store.scripts import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.feed import Feed
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.inflight_guard import InflightGuard
from lifecycle.tracking.monitor import Limits, StreamMonitor
from lifecycle.tracking.readers import Readers
from lifecycle.types import ErrorType, Labels, OnDisconnect, Status

log = logging.getLogger(__name__)


class OwnedRequests:
    """Each has a monitor, until it has ended here."""

    def __init__(
        self, store: Store, metrics: Metrics, readers: Readers, spawn: Spawn, frontend_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._readers = readers
        self._spawn = spawn
        self._frontend_id = frontend_id
        self._monitors: dict[str, StreamMonitor] = {}
        self._by_shard: list[set[str]] = [set() for _ in range(store.settings.shards)]

    def __len__(self) -> int:
        return len(self._monitors)

    def __contains__(self, rid: str) -> bool:
        return rid in self._monitors

    def held(self, shard: int) -> Collection[str]:
        return self._by_shard[shard]

    def get(self, rid: str) -> StreamMonitor | None:
        return self._monitors.get(rid)

    def own(self, feed: Feed, labels: Labels, limits: Limits, span: RequestSpan, *, queued: bool) -> StreamMonitor:
        """`feed` is pinned by the caller, and let go of when the request has ended."""
        guard = InflightGuard(self._metrics, labels)
        guard.mark_queued(queued)
        if queued:
            span.queued()
        else:
            span.started()
        monitor = StreamMonitor(
            self._store,
            self._metrics,
            feed,
            guard,
            labels,
            limits,
            span,
            self._readers.looks,
            self._spawn,
            self._let_go,
        )
        self._monitors[feed.rid] = monitor
        self._by_shard[self._store.keys.shard_of(feed.rid)].add(feed.rid)
        monitor.begin()
        return monitor

    def _let_go(self, monitor: StreamMonitor) -> None:
        self._monitors.pop(monitor.rid, None)
        self._by_shard[self._store.keys.shard_of(monitor.rid)].discard(monitor.rid)
        monitor.feed.unpin()

    def adopt(self, rids: Sequence[str]) -> None:
        """Redis says they are this frontend's: their own died, or the reply to an admission was lost."""
        for rid in rids:
            if rid not in self._monitors:
                self._spawn(self._adopt(rid), "adopt")

    async def _adopt(self, rid: str) -> None:
        record = await self._store.read(rid, retry_for_secs=self._store.settings.lease_secs)
        if record is None or record.status.terminal or record.frontend != self._frontend_id() or rid in self:
            return
        log.info("%s goes on under this frontend", rid)
        feed = self._readers.feed(rid)
        feed.pin()
        feed.started = record.started_at is not None
        feed.number = max(feed.number, record.output_tokens)
        # Its limits are still written in Redis, where the sweeps find them.
        span = RequestSpan(rid, record.labels, record.traceparent)
        monitor = self.own(feed, record.labels, Limits(), span, queued=record.status is Status.QUEUED)
        if record.on_disconnect == OnDisconnect.CANCEL and not feed.readers:
            gone = await self._readers.tell(feed, ConnectionStatus.CLOSED_UNEXPECTEDLY, admitting=False)
            if gone.what == "grace":
                monitor.watch_until(gone.grace_secs)

    def mark_stale(self, shard: int) -> None:
        """What was pushed of them may have been missed: look at each one's record."""
        for rid in self._by_shard[shard]:
            self._monitors[rid].mark_stale()

    async def check_lost(self, rids: Sequence[str]) -> None:
        """Redis does not count these as this frontend's: ended, moved, or forgotten with its data."""
        for rid in rids:
            monitor = self._monitors.get(rid)
            if monitor is None:
                continue
            try:
                record = await self._store.read(rid)
            except RedisError:  # one record's trouble is not the others'
                log.exception("the record of %s cannot be read", rid)
                continue
            if record is None:
                monitor.lose(ErrorType.STATE_LOST, "Redis lost the request")
            elif record.status.terminal:
                monitor.end_with(record)
            elif record.frontend != self._frontend_id():
                monitor.leave()

    async def leave_what_lives(self) -> None:
        """After this frontend said goodbye: what has not ended goes on under a new owner, who counts its end."""
        for monitor in list(self._monitors.values()):
            record = await self._store.read(monitor.rid)
            if record is not None and not record.status.terminal:
                monitor.leave()

    def lose_all(self, error_type: ErrorType, message: str) -> None:
        for monitor in list(self._monitors.values()):
            monitor.lose(error_type, message)
