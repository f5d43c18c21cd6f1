"""The types of the domain: requests, their states and errors, and replicas.

All are plain data without I/O. Times are Unix seconds by Redis's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import orjson


class Status(StrEnum):
    """The state of a request. It only moves forward, except that a retry moves it from `running` to `queued`."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Return whether the request has ended."""
        return self in TERMINAL


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
_STATUSES = {status.value: status for status in Status}  # found faster here than by a call of the enum


class ErrorType(StrEnum):
    """The reason why a request did not succeed, in frames, records, metric labels and logs. The list is closed."""

    NONE = ""
    VALIDATION = "validation"
    NOT_FOUND = "not_found"
    OVERLOAD = "overload"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"
    RESPONSE_TIMEOUT = "response_timeout"
    QUEUE_TIMEOUT = "queue_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    DEADLINE = "deadline"
    WORKER_LOST = "worker_lost"
    FRONTEND_LOST = "frontend_lost"
    STATE_LOST = "state_lost"
    SLOW_CONSUMER = "slow_consumer"
    INTERNAL = "internal"


class Role(StrEnum):
    """The role of a replica."""

    FRONTEND = "frontend"
    WORKER = "worker"


class ReplicaState(StrEnum):
    """The state of a living replica, as `GET /v1/replicas` shows it."""

    STARTING = "starting"
    """The worker loads its engine and takes nothing yet."""
    READY = "ready"
    """The replica serves."""
    UNHEALTHY = "unhealthy"
    """The worker's engine cannot serve; the worker takes nothing new until a probe of it succeeds."""
    PAUSED = "paused"
    """The worker takes nothing new until it is resumed; its models stay offered, and what runs goes on."""
    DRAINING = "draining"
    """The replica takes nothing new, finishes what it has, and then leaves."""


class ReplicaAction(StrEnum):
    """The instructions of an operator to a replica."""

    DRAIN = "drain"
    """Take nothing new, finish what runs within DRAIN_TIMEOUT_SECS, then leave; nothing undoes it."""
    PAUSE = "pause"
    """Take nothing new until `resume`; only a worker can."""
    RESUME = "resume"
    """Take requests again."""


class CancelMode(StrEnum):
    """The way to cancel: `stop` ends generation and delivers the tokens so far; `kill` ends the request now.

    A kill is final: a later stop changes nothing.
    """

    STOP = "stop"
    KILL = "kill"


MOST_PRIORITY = 1_000_000_000
"""The largest priority that applies; the smallest is its negative. A lower priority starts first."""


MOST_QUEUED = 2**53 - 1
"""The largest limit of what may be queued: Lua represents larger integers inexactly."""


class OnDisconnect(StrEnum):
    """The effect on a request when its last reader disconnects."""

    CANCEL = "cancel"
    CONTINUE = "continue"


USUAL_EFFECT = OnDisconnect.CANCEL.value  # of a disconnect, which a new record leaves out


class Endpoint(StrEnum):
    """The endpoint that a request came to."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    SCORE = "score"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"


TRANSLATABLE = {Endpoint.RESPONSES: Endpoint.CHAT_COMPLETIONS, Endpoint.MESSAGES: Endpoint.CHAT_COMPLETIONS}
"""The endpoints that a worker offers by translation, and the one that its engine has to serve for that."""

FORWARDS = (Endpoint.EMBEDDINGS, Endpoint.RERANK, Endpoint.SCORE, Endpoint.TOKENIZE, Endpoint.DETOKENIZE)
"""The endpoints whose answer is one event, which is the whole body of the response."""

COUNT_TOKENS = "count_tokens"
"""What an engine declares, and is told, for counting the tokens of a Messages call.

Like FORWARDS, it has one event for an answer. Such a request belongs to the endpoint `messages`.
"""

SERVES = "serves:"
"""Begins the need that the engine serves, without translation, what follows instead of the request's endpoint."""

NATIVE, TRANSLATED = "native", "translated"
"""How a worker serves an endpoint: its engine gets the call as it is, or a translation of it."""


class Storage(StrEnum):
    """Decide about a request's body and events at its end."""

    NONE = ""
    """The body is deleted at once; the events stay readable for the retention."""
    KEPT = "kept"
    """Both stay readable for the retention, as those of a stored response."""
    BACKGROUND = "background"
    """As KEPT; the response was started in the background."""
    TRANSIENT = "transient"
    """Both are deleted, the events once the readers of the moment have had time to read them."""
    DELETED = "deleted"
    """Both were deleted before their time, on demand or to make room."""


OPERATOR_CLI, OPERATOR_LIBRARY, ANONYMOUS = "operator:cli", "operator:library", "anonymous"
"""Values of the field `cancelled_by`: the command line, the library, and a caller without keys.

The others are `owner:<name>`, `operator:<name>`, `disconnect`, `parent:<id>` and `limit:<name>`.
"""


class RequestType(StrEnum):
    """The form of the response: a stream of events, or one JSON object."""

    STREAM = "stream"
    UNARY = "unary"


class Labels(NamedTuple):
    """The labels that a request is counted under."""

    model: str
    endpoint: str
    request_type: str


class Limits(NamedTuple):
    """Limit one request's time, in seconds; 0 is no limit. All run from admission."""

    queue_secs: float = 0.0
    first_token_secs: float = 0.0
    deadline_secs: float = 0.0


Event = str | dict[str, Any]
"""One thing that an engine produced: the text of a token, or a chunk of the endpoint's format without its envelope."""


class ErrorDetail(NamedTuple):
    """The parts of an engine's or upstream's error that a client receives unchanged. None stands for an absent part."""

    status: int = 500  # the HTTP status that the upstream answered, or that the engine asks for
    type: str | None = None
    code: str | int | None = None
    param: str | None = None
    retry_after_secs: float | None = None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the detail of a JSON list. Raises ValueError or TypeError when it is malformed."""
        return cls(*orjson.loads(text))


def reported_tokens(usage: Mapping[str, Any] | None, name: str) -> int | None:
    """Return a number of tokens from an engine's usage; None when the usage has no such number."""
    value = usage.get(name) if usage else None
    return value if type(value) is int and 0 <= value < 2**53 else None


NO_LABELS: Mapping[str, str] = MappingProxyType({})


class RequestRecord(NamedTuple):
    """The record of one request, as `GET /v1/requests/{id}` shows it.

    A field is None while its event has not happened.
    """

    id: str
    model: str
    endpoint: str
    request_type: str
    status: Status
    error_type: str
    error_message: str | None
    cancel_requested_at: float | None
    cancel_reason: str | None
    cancel_mode: str | None
    on_disconnect: str
    frontend: str | None
    worker: str | None
    attempt: int
    created_at: float
    started_at: float | None
    first_token_at: float | None
    last_token_at: float | None
    finished_at: float | None
    output_tokens: int
    finish_reason: str | None
    owner: str | None = None  # the name of the API key it came with
    cancelled_by: str | None = None  # who cancelled it, or the limit that ended it
    cancelled_via: str | None = None  # the frontend that the cancel came through
    usage: dict[str, Any] | None = None  # OpenAI's usage object as the engine reported it
    output_events: int = 0  # events with content
    parent: str | None = None  # the id of the request that started this one
    labels: Mapping[str, str] = NO_LABELS  # the application's own
    priority: int = 0  # in the queue, as it applied; a lower one starts first
    preemptions: int = 0  # how often it was moved back to the queue for a request of better priority
    queue_position: int | None = None  # of a queued request that was asked for alone: 1 is next in its shard
    estimated_wait_secs: float | None = None  # of such a request, until it starts; None also where it is not known
    # Internal; the HTTP API does not show these
    input_tokens: int | None = None  # for the metrics and `usage`
    idempotency: str = ""  # identifies repetitions of the call
    traceparent: str = ""  # the parent of its trace spans
    stream_length: int = 0  # events in the stream, which shows gaps; `output_tokens` is what the engine reported
    error_detail: ErrorDetail | None = None
    orphan_events: int = 0  # events that came while the client was gone and nobody read, or after a cancel
    storage: str = ""  # one of Storage
    start_nonce: str = ""  # of the latest start; empty before it
    lost_start: int = 0  # the last attempt of which Redis has lost a start, when somebody had tokens of it
    webhook: str = ""  # at the end: `waiting` in the outbox, or `dropped` because the outbox was full; empty for none
    include_usage: str = ""  # `1` if the call asked for a usage chunk in its stream, which a resumed one then has, too

    @property
    def counted_as(self) -> Labels:
        """Return the labels that the request is counted under."""
        return Labels(self.model, self.endpoint, self.request_type)

    @property
    def is_local(self) -> bool:
        """Return whether the request runs in the process of its frontend, and so has never been in a queue."""
        return self.worker is not None and self.worker == self.frontend

    @property
    def queue_secs(self) -> float | None:
        """Return the seconds from admission to the first start.

        It is None before the start, for a request that is in no queue, and after another worker has resumed the
        request, as the first start is not known then.
        """
        if self.is_local:
            return None
        resumed = self.first_token_at is not None and (self.started_at or 0.0) > self.first_token_at
        return None if resumed else _between(self.created_at, self.started_at)

    @property
    def first_token_secs(self) -> float | None:
        """Return the seconds from admission to the first token."""
        return _between(self.created_at, self.first_token_at)

    @property
    def duration_secs(self) -> float | None:
        """Return the seconds from admission to the end."""
        return _between(self.created_at, self.finished_at)

    @property
    def cancel_to_stop_secs(self) -> float | None:
        """Return the seconds from the first cancel to the end."""
        return _between(self.cancel_requested_at, self.finished_at)

    @classmethod
    def from_hash(cls, raw: Mapping[str, str]) -> RequestRecord:
        """Return the record of a Redis hash; an absent or empty field is None.

        Raises KeyError when a required field is absent, and ValueError when a value is malformed.
        """
        get = raw.get
        # In the order of the fields, as a test checks, and without the constructor: it is half as fast by name, and
        # somewhat slower by position. Each end of a request comes by here, and listings have many.
        values = (
            raw["id"],
            raw["model"],
            raw["endpoint"],
            raw["request_type"],
            _STATUSES.get(raw["status"]) or Status(raw["status"]),
            get("error_type", ""),
            get("error_message") or None,
            float(at) if (at := get("cancel_requested_at")) else None,
            get("cancel_reason") or None,
            get("cancel_mode") or None,
            get("on_disconnect", USUAL_EFFECT),
            get("frontend") or None,
            get("worker") or None,
            int(get("attempt") or 0),
            float(raw["created_at"]),
            float(at) if (at := get("started_at")) else None,
            float(at) if (at := get("first_token_at")) else None,
            float(at) if (at := get("last_token_at")) else None,
            float(at) if (at := get("finished_at")) else None,
            int(get("output_tokens") or 0),
            get("finish_reason") or None,
            get("owner") or None,
            get("cancelled_by") or None,
            get("cancelled_via") or None,
            orjson.loads(raw["usage"]) if get("usage") else None,
            int(get("output_events") or 0),
            get("parent") or None,
            orjson.loads(raw["labels"]) if get("labels") else NO_LABELS,
            int(get("priority") or 0),
            int(get("preemptions") or 0),
            None,  # queue_position, which is not in the record
            None,  # estimated_wait_secs, which is not in the record
            int(raw["input_tokens"]) if get("input_tokens") else None,
            get("idempotency", ""),
            get("traceparent", ""),
            int(get("stream_length") or get("output_tokens") or 0),
            ErrorDetail.from_json(raw["error_detail"]) if get("error_detail") else None,
            int(get("orphan_events") or 0),
            get("storage", ""),
            get("start_nonce", ""),
            int(get("lost_start") or 0),
            get("webhook", ""),
            get("include_usage", ""),
        )
        return cls._make(values)

    @classmethod
    def from_json(cls, shown: Mapping[str, Any]) -> RequestRecord:
        """Return the record of what `to_json` shows; what that leaves out has its default.

        Raises KeyError when a required field is absent, and ValueError when the status is unknown.
        """
        fields = {name: shown[name] for name in _RECORD_FIELDS if name in shown or name not in cls._field_defaults}
        return cls(**{**fields, "status": Status(fields["status"])})

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the HTTP API and `--json` show. Only a queued request's has its wait."""
        waits = self.queue_position is not None
        shown = {name: getattr(self, name) for name in _RECORD_FIELDS if name != "id" and (waits or name not in _WAIT)}
        return {"id": self.id, "object": "request"} | shown | {"labels": dict(self.labels)}


_INTERNAL = [
    "input_tokens",
    "idempotency",
    "traceparent",
    "stream_length",
    "error_detail",
    "orphan_events",
    "storage",
    "include_usage",
    "start_nonce",
    "lost_start",
    "webhook",
]
_WAIT = ("queue_position", "estimated_wait_secs")
_RECORD_FIELDS = tuple(name for name in RequestRecord._fields if name not in _INTERNAL)


def _between(earlier: float | None, later: float | None) -> float | None:
    return None if earlier is None or later is None else max(0.0, later - earlier)
