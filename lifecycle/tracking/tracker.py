"""The tracker: the frontend's side of a request's life, without HTTP.

Admits requests, monitors those it owns, opens readers on any request of the cluster, cancels by id, and gives up its
share when it leaves. Its tasks live in one task group; nothing is fired and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Literal

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreError, StoreUnavailable
from lifecycle.ids import START, TokenId, new_nonce
from lifecycle.queries.cluster import models_of
from lifecycle.replica.lease import Lease
from lifecycle.replica.reaper import Reaper
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.results import Cancellation, PendingCancellation, Roster
from lifecycle.store.server_info import warn_of_eviction
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.inbox import Inbox
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import AdmissionRequest, AdmittedRequest, Rejected
from lifecycle.tracking.connection import ConnectionMonitor, ConnectionStatus
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.queue_limit import Backlog
from lifecycle.tracking.quota import Quota
from lifecycle.tracking.readers import Readers
from lifecycle.tracking.wait_for_end import wait_for_end
from lifecycle.types import CancelMode, ErrorType, Labels, OnDisconnect, RequestRecord, Role

log = logging.getLogger(__name__)

ModelState = Literal["live", "known", "unknown"]


class Tracker:
    """Use `async with Tracker.open(…)`. It is the holder of its lease."""

    def __init__(self, settings: Settings, connections: Connections, metrics: Metrics, url: str) -> None:
        self.settings = settings
        self.store = connections.store
        self.metrics = metrics
        self.url = url
        self.draining = False
        self._leaving = False
        self._admitting: dict[str, asyncio.Event] = {}  # set once it is over
        self._backlog = Backlog(self.store)
        self._quota = Quota(self.store)
        self.lease = Lease(self.store, Role.FRONTEND, self)
        self.readers = Readers(self.store, lambda: self.id, self._spawn)
        self.owned = OwnedRequests(self.store, metrics, self.readers, self._spawn, lambda: self.id)
        self._connections = connections
        self._reaper = Reaper(self.store)
        self._roster: Roster | None = None
        self._roster_at = float("-inf")  # when Redis was last asked for it
        self._roster_failure = ""  # of that time
        self._roster_lock = asyncio.Lock()
        self._known_models: set[str] = set()
        self._live_models: frozenset[str] = frozenset()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()  # what goes on for single requests

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, metrics: Metrics, url: str, *, retry_for_secs: float = 10.0
    ) -> AsyncIterator[Tracker]:
        """Raises StoreUnavailable when Redis cannot be reached, ConfigurationConflict when replicas disagree."""
        async with Connections.open(settings) as connections:
            tracker = cls(settings, connections, metrics, url)
            await tracker.lease.join(retry_for_secs)
            await warn_of_eviction(connections.store)
            await tracker.refresh_roster()
            async with asyncio.TaskGroup() as group:
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
                    await tracker.readers.wait_until_quiet(settings.redis_timeout_secs)
                    if tracker._tasks:
                        await asyncio.wait(tracker._tasks, timeout=settings.redis_timeout_secs)
                    tracker._closed = True
                    await tasks.end((*background, *tracker._tasks))

    @property
    def id(self) -> str:
        return self.lease.id

    # Models

    async def model_state(self, model: str) -> ModelState:
        """Known by Redis or by this frontend; live when a living worker serves it now."""
        if self._state_of(model) != "live":
            await self.refresh_roster()
        return self._state_of(model)

    def _state_of(self, model: str) -> ModelState:
        if model in self._live_models:
            return "live"
        return "known" if model in self._known_models else "unknown"

    async def refresh_roster(self) -> Roster:
        """A roster no older than this call; callers that wait for one together share it, or its failure."""
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        async with self._roster_lock:
            if self._roster_at < asked_at:
                looked_at = clock()
                try:
                    self._roster, self._roster_failure = await self.store.roster(), ""
                    self._known_models.update(self._roster.models)
                    self._live_models = frozenset(models_of(self._roster))
                except StoreUnavailable as failure:
                    self._roster_failure = failure.message
                self._roster_at = looked_at
            if self._roster is None or self._roster_failure:
                raise StoreUnavailable(self._roster_failure)
            return self._roster

    # Admission

    async def admit(self, admit: AdmissionRequest) -> AdmittedRequest:
        """Queue and count a request. Raises Rejected, Fenced or StoreUnavailable; nothing is left behind then."""
        if self.draining:
            raise Rejected("draining")
        if admit.rid in self.owned or admit.rid in self._admitting:
            raise Rejected("exists")
        over = self._admitting[admit.rid] = asyncio.Event()
        try:
            if await self._backlog.is_full(admit.labels.model):
                raise Rejected("full")
            return await self._admit(admit)
        finally:
            del self._admitting[admit.rid]
            over.set()

    async def attach(self, rid: str) -> AdmittedRequest | None:
        """Read a request from its start as the client that brought it does. None when it is unknown."""
        opened = await self.open_reader(rid)
        if opened is None:
            return None
        record, reader = opened
        return self._flight(rid, record.created_at, reader, record.labels, attached=True)

    async def known_here(self, rid: str) -> bool:
        """Whether this frontend has something to do with the request; waits for an admission that is under way."""
        while (over := self._admitting.get(rid)) is not None:
            await over.wait()
        return rid in self.readers.feeds

    async def _admit(self, admit: AdmissionRequest) -> AdmittedRequest:
        feed = self.readers.feed(admit.rid)
        feed.pin()
        reader = self.readers.fresh(feed)
        span = RequestSpan(admit.rid, admit.labels, admit.traceparent)  # dropped, and so not exported, if refused
        span.queued()
        try:
            limits, nonce, share = admit.limits, new_nonce(), None
            if admit.inflight_limit:
                share = await self._quota.reserve(admit.owner, admit.rid, nonce, admit.inflight_limit)
                if share is None:
                    raise Rejected("limit")
            admission = await self.store.admit(
                admit.rid,
                nonce,
                admit.labels,
                self.id,
                admit.body,
                on_disconnect=admit.on_disconnect.value,
                grace_secs=admit.grace_secs,
                queue_timeout_secs=limits.queue_secs,
                first_token_timeout_secs=limits.first_token_secs,
                deadline_secs=limits.deadline_secs,
                traceparent=span.traceparent,
                idempotency=admit.idempotency,
                owner=admit.owner,
                admit_by=share.admit_by if share else None,
            )
            if share is not None and admission.outcome != "admitted":
                await self._quota.refused(admit.owner, share)
            if admission.outcome == "fenced":
                raise Fenced("This frontend's lease has expired")
            if admission.outcome == "late":
                raise StoreUnavailable("Redis took too long to admit the request")
            if admission.outcome != "admitted":
                raise Rejected(admission.outcome)
        except BaseException:
            self.readers.close(reader)
            feed.unpin()
            raise
        self.metrics.started.labels(*admit.labels).inc()
        self.owned.own(feed, admit.labels, limits, span, queued=not feed.started)
        self.metrics.output_tokens.labels(admit.labels.model).inc(feed.number)  # came ahead of the admission's reply
        return self._flight(admit.rid, admission.created_at, reader, admit.labels, attached=False)

    def _flight(
        self, rid: str, created_at: float, reader: TokenReader, labels: Labels, *, attached: bool
    ) -> AdmittedRequest:
        def on_closed(status: ConnectionStatus) -> None:
            self._spawn(self._let_go(reader, status, labels, admitting=not attached), "connection")

        connection, stream = ConnectionMonitor(on_closed).handles()
        return AdmittedRequest(rid, created_at, reader, connection, stream, attached)

    async def _let_go(self, reader: TokenReader, status: ConnectionStatus, labels: Labels, *, admitting: bool) -> None:
        """One disconnect and one cancellation at most come of one client."""
        if await self._detach(reader, status, admitting=admitting):
            self.metrics.disconnects.labels(labels.model, labels.endpoint).inc()

    # Readers

    async def open_reader(self, rid: str, after: TokenId = START) -> tuple[RequestRecord, TokenReader] | None:
        """Read any request of the cluster from any point. None when it is unknown or expired."""
        return await self.readers.attach(rid, after)

    async def close_reader(self, reader: TokenReader, status: ConnectionStatus) -> None:
        """For readers from `open_reader`; the loss of the last one may cancel the request."""
        await self._detach(reader, status, admitting=False)

    async def _detach(self, reader: TokenReader, status: ConnectionStatus, *, admitting: bool) -> bool:
        """Returns whether this was the request's first unexpected loss of its client."""
        gone = await self.readers.detach(reader, status, admitting=admitting)
        if gone is None:
            return False
        monitor = self.owned.get(reader.feed.rid)
        if monitor is not None and gone.what == "grace":
            monitor.watch_until(gone.grace_secs)
        return gone.first

    async def give_up_reader(self, reader: TokenReader, message: str) -> None:
        """Its socket takes nothing. The request ends with it, unless it goes on for others or by itself."""
        feed = reader.feed
        if feed.rid not in self.owned or len(feed.readers) > 1 or feed.end is not None:
            return
        record = await self.store.read(feed.rid, retry_for_secs=self.settings.lease_secs)
        if record is not None and record.on_disconnect == OnDisconnect.CANCEL:
            await self.store.fail(feed.rid, ErrorType.SLOW_CONSUMER, message, retry_for_secs=self.settings.lease_secs)

    # Cancellation

    async def cancel(self, rid: str, mode: CancelMode, reason: str, wait_secs: float = 0.0) -> Cancellation | None:
        """None when unknown. With `wait_secs`, waits for the worker's confirmation for so long."""
        cancellation = await self.store.cancel(rid, mode, reason, retry_for_secs=1.0)
        if cancellation is None or cancellation.what == "terminal" or wait_secs <= 0:
            return cancellation
        record = await wait_for_end(self.store, self._connections.subscriptions, rid, wait_secs)
        if record is None:
            return cancellation
        return Cancellation("terminal" if record.status.terminal else "pending", record)

    # Leaving

    async def announce(self) -> None:
        """Show the cluster at once that this frontend drains, unless it has been buried."""
        with suppress(StoreError, Fenced):
            await self.lease.heartbeat()

    async def hand_over(self) -> None:
        """Say goodbye: what may outlive the connection goes on under another frontend, the rest ends."""
        self._leaving = True
        try:
            with suppress(StoreError):
                await self._reaper.sweep(leaving=self.id)
                await self.owned.leave_what_lives()
        finally:
            self.end_streams(ErrorType.FRONTEND_LOST, "The frontend was shut down")

    def end_streams(self, error_type: ErrorType, message: str) -> None:
        """Every client here gets an error frame now."""
        self.owned.lose_all(error_type, message)
        self.readers.end_all(error_type, message)

    # The lease's holder

    def held(self, shard: int) -> Collection[str]:
        return self.owned.held(shard)

    def about(self) -> dict[str, Any]:
        state = "draining" if self.draining else "ready"
        return {"state": state, "url": self.url, "counted": self.metrics.counted()}

    async def on_pending_cancellations(self, orders: Sequence[PendingCancellation]) -> None:
        """Orders are for workers."""

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        await self.owned.check_lost(rids)

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        self._adopt(rids)

    async def on_new_epoch(self, shard: int) -> None:
        self.readers.mark_stale(shard)

    def _on_gap(self, shard: int) -> None:
        """What that shard has pushed meanwhile is lost."""
        self.readers.mark_stale(shard)
        self.owned.mark_stale(shard)

    # Background

    async def _live(self) -> None:
        """Beat and read the inboxes; when fenced, end every stream with an error and come back under a new id."""
        while True:
            try:
                await self._live_once()
            except* Fenced as fenced:
                cause = fenced.exceptions[0]
            if self._leaving:
                return  # buried by its own goodbye
            log.error("fenced: %s; every stream ends, and this frontend comes back under a new id", cause)
            assert isinstance(cause, Fenced)  # raised by a task of the group itself
            self.end_streams(cause.error_type, cause.message)
            self.lease = Lease(self.store, Role.FRONTEND, self)
            while True:
                with suppress(StoreError):
                    await self.lease.join(self.settings.lease_secs)
                    break
                tasks.check_cancelled()
                await asyncio.sleep(self.settings.heartbeat_secs)

    async def _live_once(self) -> None:
        """Under one identity. Raises Fenced in a group."""
        inboxes = [
            Inbox(source, self.store.keys.inbox(shard, self.id), self._dispatch, partial(self._on_gap, shard))
            for shard, source in enumerate(self._connections.sources)
        ]
        async with asyncio.TaskGroup() as group:
            for inbox in inboxes:
                group.create_task(inbox.run(), name="inbox")
            group.create_task(self._refresh(), name="roster")
            # Not a task: one that fails while the group only waits leaves its parent marked as cancelled (CPython 3.11
            # and 3.12), and who looks at that mark later, as the coming back does, would end without a word.
            await self.lease.run()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self.settings.heartbeat_secs)
            with suppress(StoreError):
                await self.refresh_roster()
            tasks.check_cancelled()

    def _dispatch(self, rid: str, entry_id: str, payload: Any) -> None:
        """One item of an inbox's frame: tokens, or an event."""
        feed = self.readers.feeds.get(rid)
        if type(payload) is list:
            if feed is not None:
                feed.take_tokens(entry_id, payload)
        elif payload["type"] == "adopted":
            if payload["frontend"] == self.id:
                self._adopt([rid])
        elif feed is not None:
            feed.take_event(payload)

    def _adopt(self, rids: Sequence[str]) -> None:
        """Not what is only being admitted: the answer to that is still on its way, and would count it again."""
        self.owned.adopt([rid for rid in rids if rid not in self._admitting])

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(self._logged(work, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _logged(work: Coroutine[Any, Any, None], name: str) -> None:
        """One request's trouble is not the others'."""
        try:
            await work
        except StoreError as failure:
            log.warning("%s: %s", name, failure)
        except Exception:
            log.exception("%s failed", name)
