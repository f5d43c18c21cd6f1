"""A new request, as the Store admits it."""

from __future__ import annotations

from typing import Any, NamedTuple

from lifecycle.formats.token_estimate import TokenEstimate
from lifecycle.queue_share import NO_SHARE, QueueShare
from lifecycle.types import USUAL_EFFECT, Event, Labels, Limits, OnDisconnect, Storage


class Parent(NamedTuple):
    """The request that started another one. `level` is the other one's in their tree, whose first request has 1."""

    rid: str
    since: str  # when it was created, as in its record; empty when it has completed, and ends nothing any more
    level: int


class ShareLimits(NamedTuple):
    """Limit what may wait for a model in one shard, of the owner and of all owners; 0 is no limit."""

    owner_requests: int = 0
    owner_tokens: int = 0  # as estimated at admission
    owner_bytes: int = 0  # of bodies
    model_requests: int = 0
    model_tokens: int = 0
    model_bytes: int = 0


class QueuePlace(NamedTuple):
    """Describe what decides about a request's place in its model's queue."""

    priority: int = 0  # a lower one starts first
    weight: float = 1.0  # of its owner
    estimate: TokenEstimate = TokenEstimate(0, None)
    share: QueueShare = NO_SHARE


class AdmissionRequest(NamedTuple):
    """Describe a request that is to be admitted."""

    rid: str
    labels: Labels
    body: bytes
    on_disconnect: OnDisconnect
    grace_secs: float
    limits: Limits
    traceparent: str = ""
    idempotency: str = ""  # see Idempotency.mark; empty without an idempotency key
    owner: str = ""  # the name of the API key of the call; empty for none
    needs: tuple[str, ...] = ()  # what the engine must take, see LivingWorker.missing
    inflight_limit: int = 0  # how many requests the owner may have inflight; 0 for no limit
    headers: bytes = b""  # for the engine, as a JSON object of strings; empty for none
    storage: Storage = Storage.NONE
    include_usage: bool = False  # whether the stream has a chunk with the usage
    openings: tuple[Event, ...] = ()  # the first events of the answer, which say only that it begins
    webhook_url: str = ""  # gets an event at the end; empty for that of the settings, if it is in the background
    parent: str = ""  # the id of the request that started this one; empty for none
    parent_owner: str = ""  # whose the parent must be; empty for anybody's
    own_labels: bytes = b""  # the application's own labels, as a JSON object of strings; empty for none
    place: QueuePlace = QueuePlace()


class NewRequest(NamedTuple):
    """A request to be admitted: what was asked for, and what its frontend has added."""

    asked: AdmissionRequest
    nonce: str  # distinguishes a repetition of this admission from another request with the same id
    frontend: str  # the id of the frontend that becomes its owner
    traceparent: str = ""  # of the frontend's own span, in place of the client's
    parent: Parent | None = None  # the request that started this one
    admit_by: float | None = None  # when the owner's quota slot may be taken back; None without a slot
    webhook_url: str = ""  # gets an event at the end; empty for none
    share_limits: ShareLimits | None = None  # None when it is not counted for any

    def record_fields(self) -> list[Any]:
        """Return the name and the value of each further field of a new request's record.

        Empty values and usual ones are left out: what reads the record knows them.
        """
        asked, limits = self.asked, self.asked.limits
        fields: list[Any] = []
        if asked.on_disconnect != USUAL_EFFECT:
            fields += ("on_disconnect", asked.on_disconnect)
        if asked.grace_secs:
            fields += ("grace_secs", asked.grace_secs)
        if self.traceparent:
            fields += ("traceparent", self.traceparent)
        if asked.owner:
            fields += ("owner", asked.owner)
        if asked.own_labels:
            fields += ("labels", asked.own_labels)
        if self.parent is not None:
            fields += ("parent", self.parent.rid, "level", self.parent.level)
            if self.parent.since:
                fields += ("parent_since", self.parent.since)
        if limits.queue_secs:
            fields += ("queue_limit_secs", limits.queue_secs)
        if limits.first_token_secs:
            fields += ("first_token_limit_secs", limits.first_token_secs)
        if limits.deadline_secs:
            fields += ("deadline_limit_secs", limits.deadline_secs)
        if any(limits):
            fields += ("due", 1)
        return fields
