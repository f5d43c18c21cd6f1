"""Decide whether a request is admitted, and admit it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from lifecycle.errors import REFUSES, Fenced, StoreForbidden, StoreFull, StoreUnavailable
from lifecycle.ids import new_nonce
from lifecycle.store.new_request import AdmissionRequest, NewRequest, Parent, ShareLimits
from lifecycle.store.results import Start
from lifecycle.store.transitions import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import Rejected
from lifecycle.tracking.forecast import Forecast
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.memory_mark import MemoryMark
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.parents import Parents
from lifecycle.tracking.queue_limit import QueueLimit, share_limits
from lifecycle.tracking.quota import Quota
from lifecycle.tracking.readers import Readers
from lifecycle.types import Storage

_BACKGROUND = Storage.BACKGROUND  # a global name: looking a member up in its enum is slow

T = TypeVar("T")
_Begin = Callable[[AdmissionRequest, TokenReader, Parent | None], Awaitable[T]]


class AdmissionControl:
    """Admit requests within the limits of the queues, of Redis's memory and of their owner."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        state: FrontendState,
        readers: Readers,
        owned: OwnedRequests,
        parents: Parents,
        forecast: Forecast,
        background_webhook_url: str = "",
    ) -> None:
        """`background_webhook_url` gets the events of responses in the background that name no other URL."""
        self._store = store
        self._metrics = metrics
        self._state = state
        self._readers = readers
        self._owned = owned
        self._parents = parents
        self._forecast = forecast
        self._background_webhook_url = background_webhook_url
        self._queue_limit = QueueLimit(store)
        self._memory_mark = MemoryMark(store)
        self._quota = Quota(store)

    async def admit(self, admit: AdmissionRequest) -> tuple[float, TokenReader]:
        """Queue and count a request; return its `created_at` in Unix seconds, and a reader for its client.

        Raises Rejected, StoreUnavailable (StoreFull when only the memory of Redis lacks), or Fenced when the frontend's
        lease has expired; nothing is left behind then.
        """
        await self._check_room(admit)
        with self._owned.admitting(admit.rid):
            try:
                if self._store.settings.refuse_hopeless and admit.limits.deadline_secs:
                    await self._check_deadline(admit)
                refusal = await self._queue_limit.refusal(admit)
                if refusal is not None:
                    raise Rejected(refusal)
                return await self._with_reader(admit, self._admit)
            except (Rejected, StoreFull) as refused:
                await self._refuse_known_id(admit.rid, refused)
                if isinstance(refused, Rejected) and refused.retry_after_secs is None:
                    refused.retry_after_secs = await self._retry_after_secs(refused.reason, admit)
                raise

    async def _with_reader(self, admit: AdmissionRequest, begin: _Begin[T]) -> tuple[T, TokenReader]:
        """Begin a request with its parent examined; return the result, and a reader, which a failure drops."""
        reader = self._open_reader(admit.rid)
        try:
            if not admit.parent:
                return await begin(admit, reader, None), reader
            async with self._with_parent(admit) as parent:
                return await begin(admit, reader, parent), reader
        except BaseException:
            self._drop_reader(reader)
            raise

    async def _check_deadline(self, admit: AdmissionRequest) -> None:
        """Refuse a request that could not end before its deadline, by the estimate."""
        wait_secs = await self._forecast.secs_until_start(admit)
        if not wait_secs:
            return
        late_secs = wait_secs + await self._forecast.secs_to_run(admit.labels.model) - admit.limits.deadline_secs
        if late_secs > 0:
            raise Rejected("hopeless", max(1.0, late_secs))

    async def _retry_after_secs(self, reason: str, admit: AdmissionRequest) -> float | None:
        """Return when a refused request may find a place, at least a second; None where nothing tells."""
        model, owner = admit.labels.model, admit.owner
        if reason in ("full", "queue_limit"):
            secs = await self._forecast.secs_until_place(model, owner)
        elif reason in ("full_model", "full_bytes"):
            secs = await self._forecast.secs_until_any_start(model)
        elif reason == "limit":
            secs = await self._forecast.secs_until_end(model, owner, admit.inflight_limit)
        else:
            return None
        return None if secs is None else max(1.0, secs)

    async def track(self, admit: AdmissionRequest) -> tuple[Start, TokenReader]:
        """Admit and start a request that runs in this process; return its start, and a reader for its client.

        Raises as `admit` does. What concerns queues, bodies, content and quotas in `admit` is not used.
        """
        await self._check_room(admit)
        with self._owned.admitting(admit.rid):
            try:
                return await self._with_reader(admit, self._track)
            except (Rejected, StoreFull) as refused:
                await self._refuse_known_id(admit.rid, refused)
                raise

    async def _track(self, admit: AdmissionRequest, reader: TokenReader, parent: Parent | None) -> Start:
        span = RequestSpan(admit.rid, admit.labels, admit.traceparent)  # one that is dropped is not exported
        asked = admit._replace(limits=admit.limits._replace(queue_secs=0.0))  # it is never queued
        frontend = self._state.id_for(admit.rid)
        start = await self._store.track(NewRequest(asked, new_nonce(), frontend, span.traceparent, parent))
        if start == "fenced":
            raise self._fenced()
        if isinstance(start, str):
            raise Rejected(start)
        self._own(reader, admit, span, local=True)  # within: the request is known here before it may be taken over
        return start

    @asynccontextmanager
    async def _with_parent(self, admit: AdmissionRequest) -> AsyncIterator[Parent]:
        """Examine the parent of a request that is being admitted. It is let go of if the request is refused."""
        try:
            yield await self._parents.examine(admit)
        except Rejected as rejected:
            if rejected.reason == "exists":  # it may be this parent's child
                self._parents.forget(admit.rid)
            else:
                self._parents.drop(admit)
            raise
        except BaseException:
            self._parents.forget(admit.rid)
            raise

    async def _check_room(self, admit: AdmissionRequest) -> None:
        """Refuse what this frontend need not ask Redis about: so nothing can have been admitted nevertheless."""
        if self._state.draining:
            raise Rejected("draining")
        if self._state.is_forbidden(admit.rid):
            raise StoreForbidden(f"{REFUSES} (NOPERM)")
        if admit.rid not in self._owned:  # else it exists, whatever the memory has
            try:
                await self._memory_mark.check(admit.rid, len(admit.body))
            except (Rejected, StoreFull) as refused:
                await self._refuse_known_id(admit.rid, refused)
                raise

    async def _refuse_known_id(self, rid: str, refusal: Rejected | StoreFull) -> None:
        """Raise Rejected (exists) in place of another refusal when the id is known."""
        exists = isinstance(refusal, Rejected) and refusal.reason == "exists"
        if not exists and await self._store.is_known(rid):
            raise Rejected("exists") from None

    def _open_reader(self, rid: str) -> TokenReader:
        """Open the reader of a request that is being admitted. It is dropped if the request is refused."""
        feed = self._readers.feed(rid)
        feed.pin()
        return self._readers.fresh(feed)

    def _drop_reader(self, reader: TokenReader) -> None:
        self._readers.close(reader)
        reader.feed.unpin()

    def _own(self, reader: TokenReader, admit: AdmissionRequest, span: RequestSpan, *, local: bool) -> None:
        feed, labels = reader.feed, admit.labels
        metrics = self._metrics.of(labels)
        metrics.started.value += 1
        self._owned.own(feed, labels, admit.limits, span, queued=not (local or feed.started), local=local)
        # Tokens that were pushed before the admission's reply came have not been counted by a monitor.
        metrics.output_tokens.value += feed.number

    async def _admit(self, admit: AdmissionRequest, reader: TokenReader, parent: Parent | None) -> float:
        span = RequestSpan(admit.rid, admit.labels, admit.traceparent)  # one that is dropped is not exported
        span.queued()
        nonce, slot = new_nonce(), None
        if admit.inflight_limit:
            slot = await self._quota.reserve(admit.owner, admit.rid, nonce, admit.inflight_limit)
            if slot is None:
                raise Rejected("limit")
        webhook_url = admit.webhook_url or (self._background_webhook_url if admit.storage is _BACKGROUND else "")
        new = NewRequest(
            admit,
            nonce,
            self._state.id_for(admit.rid),
            span.traceparent,
            parent,
            admit_by=slot.admit_by if slot else None,
            webhook_url=webhook_url,
            share_limits=self._share_limits(admit),
        )
        admission = await self._store.admit(new)
        if slot is not None and admission.outcome != "admitted":
            await self._quota.release(admit.owner, slot)
        if admission.outcome == "fenced":
            raise self._fenced()
        if admission.outcome == "late":
            raise StoreUnavailable("Redis took too long to admit the request")
        if admission.outcome != "admitted":
            raise Rejected(admission.outcome)
        self._own(reader, admit, span, local=False)
        return admission.created_at

    def _fenced(self) -> Fenced:
        """Let the leases be renewed at once, and return the error for the call that was refused meanwhile."""
        self._state.renew()
        return Fenced("This frontend's lease in the shard of the request has expired")

    def _share_limits(self, admit: AdmissionRequest) -> ShareLimits | None:
        """Return the further limits that the script compares. With several shards it only counts."""
        settings = self._store.settings
        limits = share_limits(settings, admit)
        return limits if limits is None or settings.shards == 1 else ShareLimits()
