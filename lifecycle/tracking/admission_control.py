"""Decide whether a request is admitted, and admit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lifecycle.errors import Fenced, StoreUnavailable
from lifecycle.ids import new_nonce
from lifecycle.store.results import NewRequest, Start
from lifecycle.store.transitions import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import AdmissionRequest, Rejected
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.memory_mark import MemoryMark
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.queue_limit import QueueLimit
from lifecycle.tracking.quota import Quota
from lifecycle.tracking.readers import Readers
from lifecycle.types import Storage


class AdmissionControl:
    """Admit requests within the limits of the queues, of Redis's memory and of their owner."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        state: FrontendState,
        readers: Readers,
        owned: OwnedRequests,
        background_webhook_url: str = "",
    ) -> None:
        """`background_webhook_url` gets the events of responses in the background that name no other URL."""
        self._store = store
        self._metrics = metrics
        self._state = state
        self._readers = readers
        self._owned = owned
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
            refusal = await self._queue_limit.refusal(admit.labels.model, admit.owner, len(admit.body))
            if refusal is not None:
                raise Rejected(refusal)
            return await self._admit(admit)

    async def track(self, admit: AdmissionRequest) -> tuple[Start, TokenReader]:
        """Admit and start a request that runs in this process; return its start, and a reader for its client.

        Raises as `admit` does. What concerns queues, bodies, content and quotas in `admit` is not used.
        """
        await self._check_room(admit)
        with self._owned.admitting(admit.rid), self._reader(admit) as (reader, span):
            new = NewRequest(
                rid=admit.rid,
                nonce=new_nonce(),
                labels=admit.labels,
                frontend=self._state.id_for(admit.rid),
                body=b"",
                on_disconnect=admit.on_disconnect.value,
                grace_secs=admit.grace_secs,
                first_token_timeout_secs=admit.limits.first_token_secs,
                deadline_secs=admit.limits.deadline_secs,
                traceparent=span.traceparent,
                owner=admit.owner,
                parent=admit.parent,
                own_labels=admit.own_labels,
            )
            start = await self._store.track(new)
            if start == "fenced":
                raise Fenced("This frontend's lease in the shard of the request has expired")
            if isinstance(start, str):
                raise Rejected(start)
            self._own(reader, admit, span, local=True)  # within: the request is known here before it may be taken over
        return start, reader

    async def _check_room(self, admit: AdmissionRequest) -> None:
        """Refuse what this frontend need not ask Redis about: so nothing can have been admitted nevertheless."""
        if self._state.draining:
            raise Rejected("draining")
        if admit.rid not in self._owned:  # else it exists, whatever the memory has
            await self._memory_mark.check(admit.rid, len(admit.body))

    @contextmanager
    def _reader(self, admit: AdmissionRequest) -> Iterator[tuple[TokenReader, RequestSpan]]:
        """Open the reader and the span of a request that is being admitted. Both are dropped if it is refused."""
        feed = self._readers.feed(admit.rid)
        feed.pin()
        reader = self._readers.fresh(feed)
        span = RequestSpan(admit.rid, admit.labels, admit.traceparent)  # one that is dropped is not exported
        try:
            yield reader, span
        except BaseException:
            self._readers.close(reader)
            feed.unpin()
            raise

    def _own(self, reader: TokenReader, admit: AdmissionRequest, span: RequestSpan, *, local: bool) -> None:
        feed, labels = reader.feed, admit.labels
        self._metrics.started.labels(*labels).inc()
        self._owned.own(feed, labels, admit.limits, span, queued=not (local or feed.started), local=local)
        # Tokens that were pushed before the admission's reply came have not been counted by a monitor.
        self._metrics.output_tokens.labels(labels.model).inc(feed.number)

    async def _admit(self, admit: AdmissionRequest) -> tuple[float, TokenReader]:
        with self._reader(admit) as (reader, span):
            span.queued()
            limits, nonce, slot = admit.limits, new_nonce(), None
            if admit.inflight_limit:
                slot = await self._quota.reserve(admit.owner, admit.rid, nonce, admit.inflight_limit)
                if slot is None:
                    raise Rejected("limit")
            new = NewRequest(
                rid=admit.rid,
                nonce=nonce,
                labels=admit.labels,
                frontend=self._state.id_for(admit.rid),
                body=admit.body,
                on_disconnect=admit.on_disconnect.value,
                grace_secs=admit.grace_secs,
                queue_timeout_secs=limits.queue_secs,
                first_token_timeout_secs=limits.first_token_secs,
                deadline_secs=limits.deadline_secs,
                traceparent=span.traceparent,
                idempotency=admit.idempotency,
                owner=admit.owner,
                admit_by=slot.admit_by if slot else None,
                needs=admit.needs,
                headers=admit.headers,
                storage=admit.storage.value,
                openings=admit.openings,
                webhook_url=self._webhook_url(admit),
                parent=admit.parent,
                own_labels=admit.own_labels,
            )
            admission = await self._store.admit(new)
            if slot is not None and admission.outcome != "admitted":
                await self._quota.release(admit.owner, slot)
            if admission.outcome == "fenced":
                raise Fenced("This frontend's lease in the shard of the request has expired")
            if admission.outcome == "late":
                raise StoreUnavailable("Redis took too long to admit the request")
            if admission.outcome != "admitted":
                raise Rejected(admission.outcome)
        self._own(reader, admit, span, local=False)
        return admission.created_at, reader

    def _webhook_url(self, admit: AdmissionRequest) -> str:
        return admit.webhook_url or (self._background_webhook_url if admit.storage is Storage.BACKGROUND else "")
