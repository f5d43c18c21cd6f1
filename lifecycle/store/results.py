"""What the scripts answer, typed."""

from __future__ import annotations

from typing import Literal, NamedTuple

import orjson

from lifecycle.types import RequestRecord

Refusal = Literal["gone", "closed", "fenced"]


def record_of(text: bytes) -> RequestRecord | None:
    """From the JSON of its hash; nothing is no record."""
    return RequestRecord.from_hash(orjson.loads(text)) if text else None


class Admission(NamedTuple):
    """`admitted` (created_at set), `exists`, `full` (depth set), `late` or `fenced`."""

    outcome: Literal["admitted", "exists", "full", "late", "fenced"]
    created_at: float = 0.0
    depth: int = 0


class Start(NamedTuple):
    """A worker's right to run one attempt. `base` is the number of tokens earlier attempts have left."""

    attempt: int
    base: int
    body: bytes
    request_type: str
    cancel_mode: str
    cancel_reason: str
    traceparent: str
    created_at: float


class Drop(NamedTuple):
    """Nothing to run: why is `unknown`, a terminal status, `taken`, `moved`, `overdue` or `worker_lost`."""

    why: str


class Append(NamedTuple):
    """One request's tokens in a flush; `number` is that of the last one."""

    rid: str
    attempt: int
    number: int
    tokens: bytes  # JSON list of strings
    first: bool


class Outcome(NamedTuple):
    """How an attempt ended, as its worker reports it."""

    status: Literal["completed", "failed", "cancelled"]
    error_type: str = ""
    message: str = ""
    finish_reason: str = ""


class Ended(NamedTuple):
    """`done` (this call ended it), `already`, `unknown`, `fenced`, `incomplete` (`last` set), `moved`, `killing`."""

    what: str
    text: bytes = b""  # the record, as JSON
    last: int = 0

    @property
    def record(self) -> RequestRecord | None:
        return record_of(self.text)


class Cancellation(NamedTuple):
    """`terminal` or `pending` (the worker has not confirmed)."""

    what: Literal["terminal", "pending"]
    record: RequestRecord


class Disconnection(NamedTuple):
    """What a lost connection meant: `unknown`, `terminal`, `pending`, `grace` or `continues`."""

    what: str
    first: bool
    grace_secs: float


class PendingCancellation(NamedTuple):
    """A cancel its worker may have missed."""

    rid: str
    mode: str
    reason: str


class Reconciliation(NamedTuple):
    """What a heartbeat brought back from one shard: exceptions only."""

    epoch: str
    held: int
    pending_cancellations: list[PendingCancellation]
    not_in_redis: list[str]
    not_held_locally: list[str]


class ExpiredReplica(NamedTuple):
    """A buried replica whose consequences are still to be drawn."""

    replica: str
    role: str
    models: list[str]


class Reaped(NamedTuple):
    done: bool
    ended: int
    moved: int
    waiting: int


class Page(NamedTuple):
    """One page of a listing and where to go on; `exhausted` when there is nothing further."""

    records: list[RequestRecord]
    exhausted: bool
    created_at: str
    rid: str


class Row(NamedTuple):
    """A request in a table, and how many HTTP readers it has."""

    record: RequestRecord
    readers: int


class Rows(NamedTuple):
    """At `now` by Redis's clock; `looked`: how many requests were looked at for them."""

    now: float
    looked: int
    rows: list[Row]


class RosterEntry(NamedTuple):
    id: str
    role: str
    lease_expires_in_ms: int
    about: bytes


class Roster(NamedTuple):
    """Who lives and which models are known (name → when a live worker last served it), at `now`."""

    now: float
    replicas: list[RosterEntry]
    models: dict[str, float]
    grace: bool  # Redis was away or its clock jumped: nobody is judged for one lease
