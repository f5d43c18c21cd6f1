"""A new request, as the Store admits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lifecycle.types import USUAL_EFFECT, Event, Labels


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


class NewRequest(NamedTuple):
    """A request to be admitted. A time limit of 0 is off; limits run from admission."""

    rid: str
    nonce: str  # distinguishes a repetition of this admission from another request with the same id
    labels: Labels
    frontend: str  # the id of the frontend that becomes its owner
    body: bytes  # for the worker
    on_disconnect: str  # `cancel` or `continue`
    grace_secs: float = 0.0
    queue_timeout_secs: float = 0.0
    first_token_timeout_secs: float = 0.0
    deadline_secs: float = 0.0
    traceparent: str = ""
    idempotency: str = ""  # identifies repetitions of the call; empty without an idempotency key
    owner: str = ""  # the name of the API key; empty for none
    admit_by: float | None = None  # when the owner's quota slot may be taken back; None without a slot
    needs: tuple[str, ...] = ()  # what the engine must take, see LivingWorker.missing
    headers: bytes = b""  # for the engine, as a JSON object of strings; empty for none
    storage: str = ""  # one of Storage
    openings: Sequence[Event] = ()  # the first events of the answer, which say only that it begins
    include_usage: bool = False  # whether the stream has a chunk with the usage
    webhook_url: str = ""  # gets an event at the end; empty for none
    parent: Parent | None = None  # the request that started this one
    own_labels: bytes = b""  # the application's own labels, as a JSON object of strings; empty for none
    priority: int = 0  # lower is served first
    weight: float = 1  # of the owner: its share of the tokens among those that wait
    prompt_tokens: int = 0  # as estimated
    max_tokens: int | None = None  # of the answer; None when the call does not say
    share_limits: ShareLimits | None = None  # None when it is not counted for any

    def record_fields(self) -> list[Any]:
        """Return the name and the value of each further field of a new request's record.

        Empty values and usual ones are left out: what reads the record knows them.
        """
        fields: list[Any] = []
        if self.on_disconnect != USUAL_EFFECT:
            fields += ("on_disconnect", self.on_disconnect)
        if self.grace_secs:
            fields += ("grace_secs", self.grace_secs)
        if self.traceparent:
            fields += ("traceparent", self.traceparent)
        if self.owner:
            fields += ("owner", self.owner)
        if self.own_labels:
            fields += ("labels", self.own_labels)
        if self.parent is not None:
            fields += ("parent", self.parent.rid, "level", self.parent.level)
            if self.parent.since:
                fields += ("parent_since", self.parent.since)
        if self.queue_timeout_secs:
            fields += ("queue_limit_secs", self.queue_timeout_secs)
        if self.first_token_timeout_secs:
            fields += ("first_token_limit_secs", self.first_token_timeout_secs)
        if self.deadline_secs:
            fields += ("deadline_limit_secs", self.deadline_secs)
        if self.queue_timeout_secs or self.first_token_timeout_secs or self.deadline_secs:
            fields += ("due", 1)
        return fields
