"""The values that the Store takes and returns. Times are Unix seconds by Redis's clock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import orjson

from lifecycle.records import Replica
from lifecycle.store.arguments import endpoints_argument
from lifecycle.types import NATIVE, SERVES, Endpoint, ErrorDetail, ReplicaState, RequestRecord, Role

Refusal = Literal["gone", "closed", "fenced", "expired"]
"""Why an entry is not appended: see Store.append; `expired` is that of the whole flush of an expired worker."""
AdmissionOutcome = Literal["admitted", "exists", "full", "full_bytes", "queue_limit", "full_model", "late", "fenced"]
EVERY_ENDPOINT = endpoints_argument(dict.fromkeys(Endpoint, NATIVE))
"""The endpoints of a worker that serves each of them without translation."""


def queued_and_running(number: int) -> tuple[int, int]:
    """Return both counts that Redis keeps in one number: see `counts.lua`."""
    running, queued = divmod(number, 1 << 26)
    return queued, running


def record_of(text: bytes) -> RequestRecord | None:
    """Return the record that a script sent as JSON; an empty reply means that there is none."""
    return RequestRecord.from_hash(orjson.loads(text)) if text else None


class Admission(NamedTuple):
    """The answer to an admission, see Store.admit: `created_at` is set if it was admitted, `depth` if it is `full`."""

    outcome: AdmissionOutcome
    created_at: float = 0.0
    depth: int = 0


class Start(NamedTuple):
    """A worker's right to run one attempt. `base` is the number of tokens that earlier attempts have left."""

    attempt: int
    base: int
    body: bytes
    cancel_mode: str
    traceparent: str
    created_at: float
    needs: tuple[str, ...] = ()  # the gated parameters that the request uses
    headers: bytes = b""  # for the engine, as a JSON object of strings; empty for none
    endpoint: str = ""
    owner: str = ""  # the name of the API key; empty for none
    nonce: str = ""  # of this start; empty for one by an older replica
    length: int | None = None  # entries in the token stream; None leaves it unchecked
    priority: int = 0
    preemptions: int = 0  # how often the request was moved away for one of better priority

    @property
    def served(self) -> str:
        """Return what the engine has to serve: the endpoint, or what the request needs instead of it."""
        if not self.needs:
            return self.endpoint
        return next((name.removeprefix(SERVES) for name in self.needs if name.startswith(SERVES)), self.endpoint)


class Run(NamedTuple):
    """A request that a worker has taken, and its right to run it."""

    rid: str
    model: str
    start: Start


class QueuedRequest(NamedTuple):
    """A queued request with what it needs of an engine: its endpoint, and names of gated parameters."""

    rid: str
    model: str
    endpoint: str
    needs: tuple[str, ...]


class QueuedPage(NamedTuple):
    """Hold some of a shard's queued requests, and where the next page begins: behind `rid`, admitted at `since`."""

    requests: list[QueuedRequest]
    since: str
    rid: str
    is_last: bool

    @classmethod
    def first(cls) -> QueuedPage:
        """Return what is before the first page."""
        return cls([], "-inf", "", False)


class Offer(NamedTuple):
    """Describe what a worker offers the requests that it takes: see Store.take."""

    resumable: bool = False  # its engine can continue behind the tokens of another attempt
    accepts: Sequence[str] = ("*",)  # the gated parameters that the engine takes, `*` for all
    endpoints: str = EVERY_ENDPOINT


class Taken(NamedTuple):
    """The answer to a take: requests that have started, and some that this worker's engine cannot serve.

    `waits`: nothing is left for this worker, which is rung when something comes.
    """

    runs: list[Run]
    unsupported: list[QueuedRequest]
    waits: bool


class Append(NamedTuple):
    """One request's tokens in a flush; `number` is that of the last one."""

    rid: str
    attempt: int
    number: int
    tokens: bytes  # JSON list of events
    first: bool  # it holds the request's first token that is no opening
    nonce: str = ""  # of the attempt's start; empty leaves it unchecked
    before: int | None = None  # the token before these, when Redis is to check that it has it
    counted: int = 0  # how many events these are; 0 when nobody has counted them

    @property
    def event_count(self) -> int:
        """Return how many events these are."""
        return self.counted or len(orjson.loads(self.tokens))

    @property
    def mark(self) -> str:
        """Return what the script `append` gets beside the tokens: for most entries just the nonce."""
        if not self.first and self.before is None:
            return self.nonce
        check = "" if self.before is None else f"!{self.before}"
        return f"{self.nonce}{'+' if self.first else ''}{check}"


class StartedAttempt(NamedTuple):
    """Names one start of an attempt. Another start may have the same number, when Redis has lost this one."""

    attempt: int
    nonce: str


class Outcome(NamedTuple):
    """The end of an attempt, as its worker reports it."""

    status: Literal["completed", "failed", "cancelled"]
    error_type: str = ""
    message: str = ""
    finish_reason: str = ""
    detail: ErrorDetail | None = None  # of an engine's or upstream's own error
    usage: dict[str, Any] | None = None  # OpenAI's usage object, with chat's names, as the engine reported it
    content_events: int = 0  # events of this attempt with content: not a bare role, finish reason or usage
    is_translated: bool = False  # so that the stream's events are more than the engine produced
    produced_events: int = 0  # number of the last event that the engine produced, also if it was not appended
    item_ids: tuple[str, ...] = ()  # of the answer's items, by which it is found while its content is kept


START_LOST = Outcome(
    "failed", "state_lost", "Redis lost the start of the attempt whose tokens were read; send the request again"
)
"""The end of a request that was given out in part and may run anew, so that two answers could be joined."""


class Ended(NamedTuple):
    """`done` (this call ended it), `already`, `unknown`, `fenced`, `incomplete` (`last` set), `moved`, `killing`
    or `known`.
    """

    what: str
    text: bytes = b""  # the record, as JSON
    last: int = 0

    @property
    def record(self) -> RequestRecord | None:
        """Return the record, or None when the reply has none."""
        return record_of(self.text)


def ended_of(reply: Sequence[Any]) -> Ended:
    """Return the answer of a script that ends a request."""
    what = reply[0].decode()
    if what == "incomplete":
        return Ended(what, last=int(reply[1]))
    return Ended(what, reply[1] if len(reply) > 1 else b"")


class Failure(NamedTuple):
    """The reason why an attempt failed that another worker may repeat, and the error if none can.

    `uses_attempt` is False when the attempt does not count against the limit, because it reached no engine at all.
    """

    message: str
    detail: ErrorDetail | None = None
    uses_attempt: bool = True


class Cancellation(NamedTuple):
    """`terminal`, or `pending` while the worker has not confirmed."""

    what: Literal["terminal", "pending"]
    record: RequestRecord


class Disconnection(NamedTuple):
    """The effect of a lost connection: `unknown`, `terminal`, `pending`, `grace` or `continues`.

    `first` is True when this was the request's first unexpected loss of the client that brought it.
    """

    what: str
    first: bool
    grace_secs: float


class Content(NamedTuple):
    """A request's record and body. `body` is None when it was deleted or was not to be kept beyond the end."""

    record: RequestRecord
    body: bytes | None


class Deletion(NamedTuple):
    """`deleted`, or `pending` while the request has not ended: its content is deleted at the end."""

    what: Literal["deleted", "pending"]
    record: RequestRecord


class PendingCancellation(NamedTuple):
    """A cancellation that its worker has not confirmed and may have missed."""

    rid: str
    mode: str
    reason: str


class Reconciliation(NamedTuple):
    """The differences between a replica and Redis in one shard. `held` is the number of requests that Redis counts."""

    epoch: str  # changes when the shard has lost its data
    held: int
    pending_cancellations: list[PendingCancellation]
    not_in_redis: list[str]
    not_held_locally: list[str]
    tick: int  # how often the replica has asked; one that goes back shows that the last writes were lost
    sweep: bool = False  # a sweep of the shard is due, and this replica is to do it
    takes: bool = False  # something may be queued for this worker of which no bell tells


class ExpiredReplica(NamedTuple):
    """An expired replica whose requests are not all cleaned up. `draining`: it was leaving when it expired."""

    replica: str
    role: str
    draining: bool = False


class Reaped(NamedTuple):
    """One call's cleanup in one shard. `waiting` requests have no new owner yet, as no frontend lives."""

    done: bool
    ended: int
    moved: int
    waiting: int


class Swept(NamedTuple):
    """One call's sweep of a shard: how many requests ended, whether `more` is to be done in the same way, and the index
    of the model from which the next call continues, 0 when all were examined.
    """

    ended: int
    more: bool
    next_model: int


class Steps(NamedTuple):
    """A request's record, and the steps of its timeline that the record's other fields do not tell, in order.

    `left_out` steps between the first half and the last half were not kept.
    """

    record: RequestRecord
    steps: list[dict[str, Any]]
    left_out: int


class Page(NamedTuple):
    """One page of a listing and where the next one begins; `exhausted` when there is none."""

    records: list[RequestRecord]
    exhausted: bool
    created_at: str
    rid: str


class Row(NamedTuple):
    """A request in a table, and how many HTTP readers it has."""

    record: RequestRecord
    readers: int


class Rows(NamedTuple):
    """Rows at the time `now`; `scanned` is how many requests were examined for them."""

    now: float
    scanned: int
    rows: list[Row]


class _Entry(NamedTuple):
    id: str
    role: str
    lease_expires_in_ms: int
    about: bytes


class RosterEntry(_Entry):
    """A living replica; `about` is the JSON object that it describes itself with."""

    @cached_property
    def replica(self) -> Replica:
        """Return the replica without its inflight requests; `about` is decoded once, and nobody can change it."""
        about = orjson.loads(self.about)
        return Replica(
            id=self.id,
            role=Role(self.role),
            host=about.get("host", ""),
            pid=about.get("pid", 0),
            started_at=about.get("started_at", 0.0),
            lease_expires_in_ms=self.lease_expires_in_ms,
            state=about.get("state", ReplicaState.READY),
            inflight=0,
            models=tuple(about.get("models", ())),
            concurrency=about.get("concurrency"),
            url=about.get("url"),
            error=about.get("error") or None,
            endpoints=MappingProxyType(about.get("endpoints") or {}),
            stuck=about.get("stuck", 0),
            reasserting=tuple(about.get("reasserting", ())),
            counted=MappingProxyType(about.get("counted", {})),
            unreplicated=MappingProxyType(about.get("unreplicated", {})),
        )


class UnservedModel(NamedTuple):
    """A model that no worker can serve, and the error for its queued requests."""

    model: str
    message: str = "No worker serves the model"
    detail: ErrorDetail | None = None


class Roster(NamedTuple):
    """The living replicas and the known models (name → when a living worker last served it) at the time `now`."""

    now: float
    replicas: list[RosterEntry]
    models: dict[str, float]
    grace: bool  # Redis was away or its clock jumped, so no lease expires for one lease
