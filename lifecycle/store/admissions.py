"""Admit requests: those that a worker is to run, and those that run in the process of their frontend."""

from __future__ import annotations

from typing import Any, Literal

from lifecycle.encoding import encode_events
from lifecycle.ids import new_start_nonce
from lifecycle.store.new_request import NewRequest
from lifecycle.store.results import Admission, AdmissionOutcome, Start
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.store.webhooks import event_id


class Admissions(ScriptRunner):
    """The part of the Store that admits requests, by transitions as `Store` describes them."""

    async def admit(self, request: NewRequest, *, retry_for_secs: float = 0.3) -> Admission:
        """Write a new request's record, queue it and count it as inflight of its frontend.

        A repetition with the same nonce returns `admitted` with the same time; one with another nonce returns `exists`.
        A request is refused without any write as `full` (`queue_limit` requests of its owner wait for the model in the
        shard), `full_bytes` (the bodies that wait in the shard would exceed `queue_bytes`; one alone never does),
        `queue_limit` or `full_model` (its `share_limits` would be exceeded, those of the owner or of the model),
        `late` (the time is past `admit_by`) or `fenced` (the frontend has expired). Redis refuses it, as StoreFull,
        when its memory is full.
        """
        asked = request.asked
        further = (*request.record_fields(), *self._queued_fields(request))
        reply = await self._in_shard(
            "admit",
            asked.rid,
            retry_for_secs,
            request.nonce,
            *asked.labels,
            request.frontend,
            asked.body,
            self.settings.queue_limit,
            self.settings.queue_bytes,
            "" if request.admit_by is None else f"{request.admit_by:.6f}",
            encode_events(asked.openings) if asked.openings else "",
            len(asked.openings),
            " ".join(map(str, request.share_limits)) if request.share_limits is not None else "",
            len(further),
            *further,
        )
        outcome: AdmissionOutcome = reply[0].decode()
        if outcome == "admitted":
            return Admission(outcome, created_at=float(reply[1]))
        return Admission(outcome, depth=int(reply[1]) if outcome == "full" else 0)

    def _queued_fields(self, request: NewRequest) -> list[Any]:
        """Return the names and values of the record's fields that only a request has which is queued."""
        asked, place = request.asked, request.asked.place
        fields: list[Any] = []
        if place.estimate.prompt:
            fields += ("prompt_tokens", place.estimate.prompt)
        if place.priority:
            fields += ("priority", place.priority)
        if asked.idempotency:
            fields += ("idempotency", asked.idempotency)
        if asked.needs:
            fields += ("needs", " ".join(asked.needs))
        if asked.headers:
            fields += ("headers", asked.headers)
        if place.estimate.output is not None:
            fields += ("max_tokens", place.estimate.output)
        if place.weight != 1:
            fields += ("weight", f"{place.weight:g}")
        if request.admit_by is not None:
            fields += ("quota_slot", 1)
        if asked.include_usage:
            fields += ("include_usage", 1)
        if asked.storage:
            fields += ("storage", asked.storage)
            if self.settings.stored_bytes_of_shard:
                fields += ("stored_limit_bytes", self.settings.stored_bytes_of_shard)
            if self.settings.transient_secs:
                fields += ("transient_secs", self.settings.transient_secs)
        if request.webhook_url:
            fields += ("webhook_url", request.webhook_url, "webhook_event", event_id(asked.rid, request.nonce))
        return fields

    async def track(self, request: NewRequest, *, retry_for_secs: float = 0.3) -> Start | Literal["exists", "fenced"]:
        """Write the record of a request that runs here, count it as inflight of its frontend, and begin its attempt.

        The frontend is its worker too: it appends, confirms cancels and finishes under the frontend's id. Nobody else
        can run the request, so it fails as `worker_lost` when the frontend expires. What concerns queues, bodies,
        content and quotas in `request` is not used.

        A repetition with the same nonce returns the same Start. A request is refused without any write as `exists`, or
        as `fenced` when the frontend has expired. Redis refuses it, as StoreUnavailable, when its memory is full.
        """
        asked = request.asked
        reply = await self._in_shard(
            "track",
            asked.rid,
            retry_for_secs,
            request.nonce,
            new_start_nonce(),
            *asked.labels,
            request.frontend,
            *request.record_fields(),
        )
        what = as_text(reply[0])
        if what != "run":
            return "exists" if what == "exists" else "fenced"
        return Start(
            attempt=1,
            base=0,
            body=b"{}",
            cancel_mode="",
            traceparent=request.traceparent,
            created_at=float(reply[1]),
            endpoint=asked.labels.endpoint,
            owner=asked.owner,
            nonce=as_text(reply[2]),
            length=1,  # the entry that begins the attempt
        )
