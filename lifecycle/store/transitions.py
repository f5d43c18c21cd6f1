"""The Store: each transition of a request, as a typed method over one Lua script."""

from __future__ import annotations

from typing import Any, cast

import orjson

from lifecycle.encoding import encode_events, encode_json
from lifecycle.store.arguments import MESSAGE_CHARS, encode_detail
from lifecycle.store.contents import Contents
from lifecycle.store.control_slot import ControlSlot
from lifecycle.store.instructions import Instructions
from lifecycle.store.listings import Listings
from lifecycle.store.local_starts import LocalStarts
from lifecycle.store.lost_starts import LostStarts
from lifecycle.store.membership import Membership, fenced
from lifecycle.store.new_request import NewRequest
from lifecycle.store.queues import Queues
from lifecycle.store.request_trees import RequestTrees
from lifecycle.store.results import (
    Admission,
    AdmissionOutcome,
    Append,
    Cancellation,
    Disconnection,
    Ended,
    Failure,
    Outcome,
    ended_of,
    record_of,
)
from lifecycle.store.runner import as_text
from lifecycle.store.token_appends import TokenAppends
from lifecycle.store.webhooks import WebhookOutbox, event_id
from lifecycle.types import (
    OPERATOR_LIBRARY,
    CancelMode,
    ErrorDetail,
    RequestRecord,
    reported_tokens,
)


class Store(
    ControlSlot,
    Membership,
    Instructions,
    Queues,
    Listings,
    Contents,
    WebhookOutbox,
    TokenAppends,
    LostStarts,
    LocalStarts,
    RequestTrees,
):
    """All access to the state of requests and replicas in Redis.

    These rules hold for every transition below:

    - Atomicity: it is one script in the slot of the request. It first checks and then writes, so it takes effect as a
      whole or not at all.
    - Ordering: Redis executes the transitions of one request one after the other. The first one that ends the request
      takes effect; later ones return that it has ended. Messages are published by the same script after its writes.
    - Repetition: it may be repeated with the same arguments. The repetition changes nothing, and returns what the
      docstring says. With `retry_for_secs` the Store repeats it while Redis is unavailable.
    - Loss: Redis replicates asynchronously, so a failover or a restart without an append-only file may lose a
      transition that was confirmed. Messages to frontends and workers may be lost at any time. The next heartbeat
      finds both, and the request ends with `state_lost` or `worker_lost` where it cannot go on.
    - Errors: StoreUnavailable when Redis gave no usable answer; the transition may have been executed nevertheless.
      redis.exceptions.ResponseError when a key holds something else than it should.
    """

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

    async def finish(
        self,
        rid: str,
        worker: str,
        attempt: int,
        outcome: Outcome,
        last: int,
        *,
        remainder: Append | None = None,
        nonce: str = "",
        length: int | None = None,
        retry_for_secs: float = 0.0,
    ) -> Ended:
        """End a running request as its worker reports it, with `last` tokens, and so confirm a pending cancel.

        `remainder` are the tokens up to `last` of which no append was confirmed. Those that the stream lacks are
        appended, so a finish may follow an append whose reply was lost: the script then asks for a shorter remainder,
        because Lua's JSON library would change some events. `last` counts events; the record's `output_tokens` is the
        number that `outcome.usage` reports, else that of the events which the engine produced. A pending kill takes
        effect in place of `outcome`; a pending stop ends it as `completed` with `finish_reason` `stop`.

        `nonce` is that of the attempt's start, and `length` how many entries the stream has without the remainder. A
        request is never `completed` when its stream has another length: Redis has lost entries from its middle.

        Returns `done`, or `already` when it had ended before, also by an earlier execution of this call. The request is
        not changed for `unknown`, `fenced` (the attempt is not this worker's) and `incomplete` (the stream ends before
        `last`, or lacks entries).
        """
        input_tokens = reported_tokens(outcome.usage, "prompt_tokens")
        output_tokens = reported_tokens(outcome.usage, "completion_tokens")
        if output_tokens is None and outcome.is_translated:
            output_tokens = outcome.content_events
        count = remainder.event_count if remainder else 0
        while True:
            reply = await self._in_shard(
                "finish",
                rid,
                retry_for_secs,
                worker,
                attempt,
                outcome.status,
                outcome.error_type,
                outcome.message[:MESSAGE_CHARS],
                outcome.finish_reason[:MESSAGE_CHARS],
                last,
                f"{attempt}-{remainder.number}" if remainder else "",
                last - count,
                remainder.tokens if remainder else "",
                int(remainder.first) if remainder else 0,
                "" if input_tokens is None else input_tokens,
                "" if output_tokens is None else output_tokens,
                outcome.content_events,
                outcome.produced_events,
                encode_json(outcome.usage) if outcome.usage else "",
                encode_detail(outcome.detail),
                self.settings.retention_secs,
                " ".join(outcome.item_ids),
                nonce,
                "" if length is None else length,
            )
            what = as_text(reply[0])
            if what == "again":
                continue
            if remainder is None or what != "overlap":
                return ended_of(reply)
            missing = orjson.loads(remainder.tokens)[int(reply[1]) - last :]
            count = len(missing)
            remainder = remainder._replace(tokens=orjson.dumps(missing), counted=count)
            length = None if length is None else length + 1  # the append whose reply was lost has added an entry

    async def fail(
        self,
        rid: str,
        error_type: str,
        message: str,
        *,
        seen: int | None = None,
        detail: ErrorDetail | None = None,
        only_queued: bool = False,
        retry_for_secs: float = 0.0,
    ) -> Ended:
        """End a request as failed, on behalf of its frontend. A worker that runs it is notified to kill it.

        A worker that can neither run nor hand on a queued request fails it too. `detail` has the parts of the error
        that the client gets beside the message. With `seen` it ends only if no token came after that number, and with
        `only_queued` only if it has not been started; else `moved` is returned. Returns `done`, or `already` when it
        had ended before, also by an earlier execution of this call. Nothing is written for `unknown`, `moved` and
        `killing` (a kill is pending, which the worker confirms).
        """
        reply = await self._in_shard(
            "fail",
            rid,
            retry_for_secs,
            error_type,
            message[:MESSAGE_CHARS],
            "" if seen is None else seen,
            encode_detail(detail),
            "1" if only_queued else "",
            self.settings.retention_secs,
        )
        return ended_of(reply)

    async def cancel(
        self,
        rid: str,
        mode: CancelMode,
        reason: str,
        *,
        by: str = OPERATOR_LIBRARY,
        via: str = "",
        retry_for_secs: float = 0.0,
    ) -> Cancellation | None:
        """Record the intent to stop or kill a request. Return None when the request is unknown.

        `by` says who cancels it, as the record's `cancelled_by`, and `via` through which frontend ('' for none).

        A queued request ends at once. A kill of a running one closes its token stream in the same script, so no token
        follows it; the worker is notified, and the request ends when the worker confirms or has expired. A repetition
        returns the state that the request has then. A kill after a stop takes effect; a stop after a kill changes
        nothing. The message to the worker may be lost, so each heartbeat returns the cancellation until the worker has
        confirmed it.
        """
        reply = await self._in_shard(
            "cancel",
            rid,
            retry_for_secs,
            mode.value,
            reason[:MESSAGE_CHARS],
            by,
            via,
            self.settings.retention_secs,
        )
        record = record_of(reply[1]) if len(reply) > 1 else None
        return Cancellation(cast(Any, as_text(reply[0])), record) if record else None

    async def attach(
        self, rid: str, frontend: str, readers: int, *, retry_for_secs: float = 0.0
    ) -> RequestRecord | None:
        """Send a request's tokens and events to this frontend's inbox from now on, and return its record.

        `readers` is the number of HTTP readers that the frontend has of the request now. It is absolute, so a
        repetition changes nothing; calls of one frontend for one request must not overtake each other. A reader ends a
        disconnect grace that is running. Returns None when the request is unknown. A request that has ended is only
        read. Raises Fenced when the frontend has expired.
        """
        reply = await self._in_shard("attach", rid, retry_for_secs, frontend, readers)
        if reply == [b"fenced"]:
            raise fenced(frontend)
        return record_of(reply)

    async def disconnect(
        self,
        rid: str,
        frontend: str,
        readers: int,
        connection: str,
        *,
        admitting: bool,
        retry_for_secs: float = 0.0,
    ) -> Disconnection:
        """Record that an HTTP connection has ended, and cancel the request, begin its grace or let it continue.

        `readers` is the number of HTTP readers that are left at this frontend, as in `attach`. `connection` is
        `closed_gracefully`, which never cancels, or `closed_unexpectedly`. `admitting` marks the connection that
        brought the request; its status is stored and published once. A repetition changes nothing, but `first` is then
        False. An expired frontend may still call it.
        """
        reply = await self._in_shard(
            "disconnect",
            rid,
            retry_for_secs,
            frontend,
            readers,
            connection,
            int(admitting),
            self.settings.retention_secs,
        )
        return Disconnection(as_text(reply[0]), bool(reply[1]), float(reply[2]))

    async def requeue(
        self,
        rid: str,
        worker: str,
        attempt: int,
        *,
        failure: Failure | None = None,
        preempted_by: int | None = None,
        retry_for_secs: float = 0.0,
    ) -> str:
        """Queue a request again that runs here, in front of its owner's others, and ring a worker that waits.

        `failure` says why the attempt failed; without it the request is moved in an orderly way, which uses up no
        attempt. `preempted_by` is the priority of the request that gets its slot, if it is moved for one; the record
        counts that. The end of the attempt is marked in the stream, so tokens of it that are under way are refused.
        Returns `requeued`; `ended` when the request ended instead, because a cancel is pending, its attempts are used
        up, or its engine cannot continue behind its tokens; `not` when it is not this worker's; or `unknown`. A
        repetition returns `not`.
        """
        reply = await self._in_shard(
            "requeue",
            rid,
            retry_for_secs,
            worker,
            attempt,
            int(failure is not None and failure.uses_attempt),
            failure.message[:MESSAGE_CHARS] if failure else "",
            encode_detail(failure.detail if failure else None),
            self.settings.max_attempts,
            self.settings.retention_secs,
            "" if preempted_by is None else preempted_by,
        )
        return as_text(reply[0])

    async def is_known(self, rid: str) -> bool:
        """Return whether a request has a record: it is inflight, or has not expired since its end."""
        return bool(await self.command("EXISTS", self.keys.prefix_of(rid) + "request:" + rid, retry_for_secs=0.3))

    async def read(self, rid: str, *, retry_for_secs: float = 0.0) -> RequestRecord | None:
        """Return a request's record with the progress of its stream, or None when it is unknown or has expired."""
        return record_of(await self._in_shard("read", rid, retry_for_secs))
