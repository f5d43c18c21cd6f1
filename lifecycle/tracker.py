"""The tracker: the frontend's side of a request's life, without HTTP.

Admits requests, monitors those it owns, opens readers on any request of the cluster, cancels by id, and gives up its
share when it leaves. Its tasks live in one task group; nothing is fired and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from lifecycle import tasks
from lifecycle.cluster import models_of
from lifecycle.connection import ConnectionHandle, ConnectionStatus, monitor_connection
from lifecycle.errors import Fenced, StoreError, StoreUnavailable
from lifecycle.ids import START, TokenId, new_nonce
from lifecycle.inflight import InflightGuard
from lifecycle.lease import Lease
from lifecycle.metrics import Metrics
from lifecycle.model import CancelMode, ErrorType, Labels, OnDisconnect, Request, Role
from lifecycle.monitor import Limits, StreamMonitor
from lifecycle.reaper import Reaper
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.results import Cancellation, Order, Roster
from lifecycle.store.scripts import Store
from lifecycle.tokens.feed import Feed
from lifecycle.tokens.inbox import Inbox
from lifecycle.tokens.reader import TokenReader

log = logging.getLogger(__name__)

_POLL_SECS = 0.5  # while waiting for a cancel's confirmation, should its message get lost

ModelState = Literal["live", "known", "unknown"]


@dataclass(slots=True, frozen=True)
class Admit:
    """What a frontend wants to have done."""

    rid: str
    labels: Labels
    body: bytes
    on_disconnect: OnDisconnect
    grace_secs: float
    limits: Limits
    traceparent: str = ""


class Rejected(Exception):
    """Not admitted: `exists`, `full` or `draining`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Flight:
    """A request this frontend owns, with the reader and the connection handles of the client that brought it."""

    rid: str
    created_at: float
    reader: TokenReader
    monitor: StreamMonitor
    connection: ConnectionHandle
    stream: ConnectionHandle


class Tracker:
    """Use `async with Tracker.open(…)`."""

    def __init__(self, settings: Settings, connections: Connections, metrics: Metrics, url: str) -> None:
        self.settings = settings
        self.store: Store = connections.store
        self.metrics = metrics
        self.url = url
        self.draining = False
        self.roster: Roster | None = None
        self.lease = Lease(self.store, Role.FRONTEND, self)
        self._connections = connections
        self._reaper = Reaper(self.store)
        self._feeds: dict[str, Feed] = {}
        self._monitors: dict[str, StreamMonitor] = {}
        self._owned: list[set[str]] = [set() for _ in range(settings.shards)]
        self._known_models: set[str] = set()
        self._roster_at = float("-inf")
        self._roster_lock = asyncio.Lock()
        self._inboxes: list[Inbox] = []
        self._readers = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, metrics: Metrics, url: str, *, patience_secs: float = 10.0
    ) -> AsyncIterator[Tracker]:
        """Raises StoreUnavailable when Redis cannot be reached, ConfigurationConflict when replicas disagree."""
        async with Connections.open(settings) as connections:
            tracker = cls(settings, connections, metrics, url)
            await tracker.lease.join(patience_secs)
            await tracker.refresh_roster()
            async with asyncio.TaskGroup() as group:
                tracker._group = group
                background = [
                    group.create_task(tracker._live(), name="lease"),
                    group.create_task(tracker._reaper.run(), name="reaper"),
                    group.create_task(connections.subscriptions.run(), name="subscriptions"),
                ]
                try:
                    yield tracker
                finally:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(settings.redis_timeout_secs * 2):
                            await tracker.hand_over()
                    if tracker._tasks:
                        await asyncio.wait(tracker._tasks, timeout=settings.redis_timeout_secs)
                    await tasks.end((*background, *tracker._tasks))

    @property
    def id(self) -> str:
        return self.lease.id

    @property
    def inflight(self) -> int:
        return len(self._monitors)

    @property
    def readers(self) -> int:
        """Open streams here, and clients that wait for a unary answer."""
        return self._readers

    # Admission

    async def model_state(self, model: str) -> ModelState:
        """Known by Redis or by this frontend; live when a living worker serves it now."""
        if self._state_of(model) != "live":
            await self.refresh_roster()
        return self._state_of(model)

    def _state_of(self, model: str) -> ModelState:
        if model in self.live_models:
            return "live"
        return "known" if model in self._known_models else "unknown"

    @property
    def live_models(self) -> dict[str, float]:
        """Models of living workers, with the earliest time one of them started."""
        return models_of(self.roster) if self.roster else {}

    async def refresh_roster(self) -> Roster:
        """A roster no older than this call; callers that wait for one together share it."""
        asked_at = asyncio.get_running_loop().time()
        async with self._roster_lock:
            if self.roster is None or self._roster_at < asked_at:
                self._roster_at = asyncio.get_running_loop().time()
                self.roster = await self.store.roster()
                self._known_models.update(self.roster.models)
            return self.roster

    async def admit(self, admit: Admit) -> Flight:
        """Queue and count a request. Raises Rejected, Fenced or StoreUnavailable; nothing is left behind then."""
        if self.draining:
            raise Rejected("draining")
        if admit.rid in self._feeds:
            raise Rejected("exists")
        feed = self._open_feed(admit.rid)
        feed.pin()
        reader = self._reader(feed, fresh=True)
        try:
            limits = admit.limits
            admission = await self.store.admit(
                admit.rid, new_nonce(), admit.labels, self.id, admit.body,
                on_disconnect=admit.on_disconnect.value, grace_secs=admit.grace_secs,
                queue_timeout_secs=limits.queue_secs, first_token_timeout_secs=limits.first_token_secs,
                deadline_secs=limits.deadline_secs, traceparent=admit.traceparent,
            )  # fmt: skip
            if admission.outcome == "fenced":
                raise Fenced("This frontend's lease has expired")
            if admission.outcome != "admitted":
                raise Rejected(admission.outcome)
        except BaseException:
            self._close(reader)
            feed.unpin()
            raise
        self.metrics.started.labels(*admit.labels).inc()
        monitor = self._own(feed, admit.labels, limits, queued=not feed.started)
        flight = Flight(
            admit.rid, admission.created_at, reader, monitor, ConnectionHandle.armed(), ConnectionHandle.disabled()
        )
        self._spawn(self._watch_client(flight.connection.told, flight.stream.told, reader, admit.labels), "connection")
        return flight

    def _own(self, feed: Feed, labels: Labels, limits: Limits, *, queued: bool) -> StreamMonitor:
        guard = InflightGuard(self.metrics, labels)
        guard.mark_queued(queued)
        monitor = StreamMonitor(self.store, self.metrics, feed, guard, labels, limits)
        self._monitors[feed.rid] = monitor
        self._owned[self.store.keys.shard_of(feed.rid)].add(feed.rid)
        self._spawn(self._monitor(monitor), "monitor")
        return monitor

    async def _monitor(self, monitor: StreamMonitor) -> None:
        try:
            await monitor.run()
        finally:
            self._monitors.pop(monitor.rid, None)
            self._owned[self.store.keys.shard_of(monitor.rid)].discard(monitor.rid)
            monitor.feed.unpin()

    async def _watch_client(
        self,
        connection: asyncio.Future[ConnectionStatus],
        stream: asyncio.Future[ConnectionStatus],
        reader: TokenReader,
        labels: Labels,
    ) -> None:
        """One disconnect and one cancellation at most come of one client."""

        async def on_closed(status: ConnectionStatus) -> None:
            first = await self._detach(reader, status, admitting=True)
            if first:
                self.metrics.disconnects.labels(labels.model, labels.endpoint).inc()

        await monitor_connection(connection, stream, on_closed)

    # Readers

    async def open_reader(self, rid: str, after: TokenId = START) -> tuple[Request, TokenReader] | None:
        """Read any request of the cluster from any point. None when it is unknown or expired."""
        feed = self._feeds.get(rid) or self._open_feed(rid)
        reader = self._reader(feed, after=after)
        try:
            async with feed.attaching:
                record = await self.store.attach(rid, self.id, feed.http_readers)
        except BaseException:
            self._close(reader)
            raise
        if record is None:
            self._close(reader)
            return None
        return record, reader

    async def close_reader(self, reader: TokenReader, status: ConnectionStatus) -> None:
        """For readers from `open_reader`; the loss of the last one may cancel the request."""
        await self._detach(reader, status, admitting=False)

    async def _detach(self, reader: TokenReader, status: ConnectionStatus, *, admitting: bool) -> bool:
        """Returns whether this was the request's first unexpected loss of its client."""
        feed = reader.feed
        self._close(reader)
        if feed.record is not None and not admitting:
            return False  # ended: its readers are no longer counted
        try:
            async with feed.attaching:
                gone = await self.store.disconnect(
                    feed.rid, self.id, feed.http_readers, status.value, admitting=admitting,
                    patience_secs=self.settings.lease_secs,
                )  # fmt: skip
        except StoreUnavailable as failure:
            log.warning("a disconnect of %s could not be written: %s", feed.rid, failure)
            return status is ConnectionStatus.CLOSED_UNEXPECTEDLY and admitting
        monitor = self._monitors.get(feed.rid)
        if monitor is not None and gone.what == "grace" and gone.record is not None:
            monitor.watch_until(gone.grace_secs)
        return gone.first

    async def give_up_reader(self, reader: TokenReader, message: str) -> None:
        """Its socket takes nothing. The request ends with it, unless it goes on for others or by itself."""
        feed, monitor = reader.feed, self._monitors.get(reader.feed.rid)
        if monitor is None or len(feed.readers) > 1 or feed.end is not None:
            return
        record = await self.store.read(feed.rid, patience_secs=self.settings.lease_secs)
        if record is not None and record.on_disconnect == OnDisconnect.CANCEL:
            await self.store.fail(feed.rid, ErrorType.SLOW_CONSUMER, message, patience_secs=self.settings.lease_secs)

    def _reader(self, feed: Feed, *, after: TokenId = START, fresh: bool = False) -> TokenReader:
        self._readers += 1
        self._quiet.clear()
        return TokenReader(
            self.store, feed, after=after, fresh=fresh, buffer_tokens=self.settings.reader_buffer_tokens,
            keepalive_secs=self.settings.sse_keepalive_secs, patience_secs=self.settings.lease_secs,
        )  # fmt: skip

    def _close(self, reader: TokenReader) -> None:
        reader.close()
        self._readers -= 1
        if self._readers == 0:
            self._quiet.set()

    def _open_feed(self, rid: str) -> Feed:
        feed = self._feeds[rid] = Feed(rid, self._close_feed)
        return feed

    def _close_feed(self, feed: Feed) -> None:
        if self._feeds.get(feed.rid) is feed:
            del self._feeds[feed.rid]

    # Cancellation

    async def cancel(self, rid: str, mode: CancelMode, reason: str, wait_secs: float = 0.0) -> Cancellation | None:
        """None when unknown. With `wait_secs`, waits for the worker's confirmation for so long."""
        cancellation = await self.store.cancel(rid, mode, reason, patience_secs=1.0)
        if cancellation is None or cancellation.what == "terminal" or wait_secs <= 0:
            return cancellation
        record = await self._wait_for_end(rid, wait_secs)
        if record is None:
            return cancellation
        return Cancellation("terminal" if record.status.terminal else "pending", record)

    async def _wait_for_end(self, rid: str, wait_secs: float) -> Request | None:
        ended = asyncio.Event()
        channel = self.store.keys.channel(rid)
        subscriptions = self._connections.subscriptions
        record: Request | None = None

        def on_message(message: dict[str, Any]) -> None:
            if message["type"] == "terminal":
                ended.set()

        subscription = await subscriptions.subscribe(channel, on_message, on_gap=ended.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_secs):
                    while True:
                        record = await self.store.read(rid, patience_secs=1.0)
                        if record is None or record.status.terminal:
                            break
                        with suppress(TimeoutError):
                            async with asyncio.timeout(_POLL_SECS):
                                await ended.wait()
                        ended.clear()
        finally:
            await subscriptions.unsubscribe(subscription)
        return record

    # Leaving

    async def wait_until_quiet(self, timeout_secs: float) -> None:
        """Until no client waits for an answer here, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_secs):
                await self._quiet.wait()

    async def announce(self) -> None:
        """Show the cluster at once that this frontend drains."""
        with suppress(StoreError):
            await self.lease.beat()

    async def hand_over(self) -> None:
        """Say goodbye: what may outlive the connection goes on under another frontend, the rest ends."""
        with suppress(StoreError):
            await self._reaper.sweep(leaving=self.id)
            for monitor in list(self._monitors.values()):
                record = await self.store.read(monitor.rid)
                if record is not None and not record.status.terminal:
                    monitor.leave()
        self.end_streams(ErrorType.FRONTEND_LOST, "The frontend was shut down")

    def end_streams(self, error_type: ErrorType, message: str) -> None:
        """Every client here gets an error frame now."""
        for monitor in list(self._monitors.values()):
            monitor.lose(error_type, message)
        for feed in list(self._feeds.values()):
            feed.lose(error_type, message)

    # What the inbox brings

    def _dispatch(self, rid: str, entry_id: str, payload: Any) -> None:
        feed = self._feeds.get(rid)
        if feed is None:
            if isinstance(payload, dict) and payload["type"] == "adopted" and payload["frontend"] == self.id:
                self._spawn(self._adopt(rid), "adopt")
            return
        if isinstance(payload, list):
            feed.take_tokens(entry_id, payload)
        elif payload["type"] == "adopted":
            if payload["frontend"] == self.id and rid not in self._monitors:
                self._spawn(self._adopt(rid), "adopt")
        else:
            feed.take_event(payload)

    async def _adopt(self, rid: str) -> None:
        """Own a request that Redis says is ours: its frontend died, or our own admission's reply was lost."""
        if rid in self._monitors:
            return
        record = await self.store.read(rid, patience_secs=self.settings.lease_secs)
        if record is None or record.status.terminal or record.frontend != self.id or rid in self._monitors:
            return
        feed = self._feeds.get(rid) or self._open_feed(rid)
        feed.pin()
        feed.started = record.started_at is not None
        feed.number = max(feed.number, record.output_tokens)
        monitor = self._own(feed, record.labels, Limits(), queued=record.status == "queued")
        if record.on_disconnect == OnDisconnect.CANCEL and not feed.readers:
            # Nobody reads it here; a sweep, by Redis's clock, decides whether it may go on.
            async with feed.attaching:
                gone = await self.store.disconnect(
                    rid, self.id, feed.http_readers, ConnectionStatus.CLOSED_UNEXPECTEDLY.value, admitting=False,
                    patience_secs=self.settings.lease_secs,
                )  # fmt: skip
            if gone.what == "grace":
                monitor.watch_until(gone.grace_secs)

    # The lease's holder

    def held(self, shard: int) -> Collection[str]:
        return self._owned[shard]

    def about(self) -> dict[str, Any]:
        return {"state": "draining" if self.draining else "ready", "url": self.url}

    async def on_orders(self, orders: Sequence[Order]) -> None:
        """Orders are for workers."""

    async def on_lost(self, rids: Sequence[str]) -> None:
        for rid in rids:
            monitor = self._monitors.get(rid)
            if monitor is None:
                continue
            record = await self.store.read(rid)
            if record is None:
                monitor.lose(ErrorType.STATE_LOST, "Redis lost the request")
            elif record.status.terminal:
                monitor.end_with(record)
            elif record.frontend != self.id:
                monitor.leave()

    async def on_unheld(self, rids: Sequence[str]) -> None:
        for rid in rids:
            self._spawn(self._adopt(rid), "adopt")

    def on_new_epoch(self, shard: int) -> None:
        self._inboxes[shard].rewind()

    async def _live(self) -> None:
        """Beat; when fenced, end every stream with an error and come back under a new id."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    self._inboxes = [
                        Inbox(client, f"{prefix}inbox:{self.id}", self._dispatch)
                        for client, prefix in zip(self._connections.blocking, self.store.keys.prefixes, strict=True)
                    ]
                    for inbox in self._inboxes:
                        group.create_task(inbox.run(), name="inbox")
                    group.create_task(self._refresh(), name="roster")
                    group.create_task(self.lease.run(), name="beat")
            except* Fenced as fenced:
                log.error("fenced: %s; every stream ends, and this frontend comes back under a new id", fenced)
            self.end_streams(ErrorType.FRONTEND_LOST, "The frontend lost its lease")
            self.lease = Lease(self.store, Role.FRONTEND, self)
            while True:
                with suppress(StoreError):
                    await self.lease.join(self.settings.lease_secs)
                    break
                await asyncio.sleep(self.settings.heartbeat_secs)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self.settings.heartbeat_secs)
            with suppress(StoreError):
                await self.refresh_roster()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        assert self._group is not None
        task = self._group.create_task(self._logged(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _logged(work: Coroutine[Any, Any, None], name: str) -> None:
        """One request's trouble must not end the others' task group."""
        try:
            await work
        except StoreError as failure:
            log.warning("%s: %s", name, failure)
        except Exception:
            log.exception("%s failed", name)
