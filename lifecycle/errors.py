"""Exceptions, and the table that gives each `ErrorType` its HTTP status and OpenAI `type`.

LifecycleError              Base class: has an `error_type` and a `message`
├── StoreError              Raised when Redis gave no usable answer
│   ├── StoreUnavailable    Raised when Redis cannot be reached or refuses commands
│   │   ├── StoreFull       Raised when the memory of Redis is full, so that nothing new is admitted
│   │   └── StoreForbidden  Raised when the access rules of Redis forbid a command
│   └── StateLost           Raised when Redis answers, but has lost the data
├── Fenced                  Raised when this replica's lease has expired
├── ConfigurationConflict   Raised when this replica's common settings differ from the cluster's
├── EngineError             Raised by an engine that cannot answer a request
├── Unavailable             Raised by an engine that cannot serve now, and by the library when the cluster cannot
│   └── NotConnected        Raised by an engine whose upstream cannot be connected to
├── Overloaded              Raised when a limit refuses a request
├── NotFound                Raised when a request or replica is unknown
│   └── ParentNotFound      Raised when the parent of a new request is unknown, or another owner's
├── Conflict                Raised when an id is in use, a parent has ended, or a replica drains
│   └── ParentEnded         Raised when the parent of a new request has ended
├── RequestFailed           Raised when a request that was read did not go well
├── InvalidSetting          Raised when a setting is unknown, out of range, or contradicts another
└── InvalidValue            Raised, as a ValueError too, when an id, a position or a label is malformed
"""

from __future__ import annotations

from typing import NamedTuple

from lifecycle.types import ErrorDetail, ErrorType


class ErrorResponse(NamedTuple):
    """The form of an error type in the HTTP API."""

    status: int  # HTTP status, and the `code` of an error frame
    type: str  # the OpenAI `type`


ERROR_RESPONSES: dict[ErrorType, ErrorResponse] = {
    ErrorType.VALIDATION: ErrorResponse(400, "invalid_request_error"),
    ErrorType.NOT_FOUND: ErrorResponse(404, "not_found_error"),
    ErrorType.OVERLOAD: ErrorResponse(429, "rate_limit_error"),
    ErrorType.UNAVAILABLE: ErrorResponse(503, "service_unavailable"),
    ErrorType.CANCELLED: ErrorResponse(499, "request_cancelled"),
    ErrorType.RESPONSE_TIMEOUT: ErrorResponse(504, "timeout_error"),
    ErrorType.QUEUE_TIMEOUT: ErrorResponse(504, "timeout_error"),
    ErrorType.FIRST_TOKEN_TIMEOUT: ErrorResponse(504, "timeout_error"),
    ErrorType.DEADLINE: ErrorResponse(504, "timeout_error"),
    ErrorType.WORKER_LOST: ErrorResponse(500, "internal_server_error"),
    ErrorType.FRONTEND_LOST: ErrorResponse(503, "service_unavailable"),
    ErrorType.STATE_LOST: ErrorResponse(503, "service_unavailable"),
    ErrorType.SLOW_CONSUMER: ErrorResponse(408, "slow_consumer"),
    ErrorType.INTERNAL: ErrorResponse(500, "internal_server_error"),
}

OUTPUT_TOO_LARGE = "output_too_large"  # the OpenAI `type` of an OutputTooLarge
REFUSES = "Redis refuses commands for now"  # begins the summary of a StoreUnavailable that an error of Redis has caused
STREAM_ENDED = "Disconnected: Stream ended before generation completed"


class LifecycleError(Exception):
    """Base class of the errors that a user of the library may want to catch."""

    error_type: ErrorType = ErrorType.INTERNAL

    def __init__(self, message: str, *, error_type: ErrorType | None = None) -> None:
        super().__init__(message)
        self.message = message
        if error_type is not None:
            self.error_type = error_type


class StoreError(LifecycleError):
    """Raised when Redis gave no usable answer."""

    error_type = ErrorType.UNAVAILABLE


class StoreUnavailable(StoreError):
    """Raised when Redis cannot be reached or refuses commands. A later call may succeed.

    `cause` are the words of the client library or the server, which may contain addresses: they are for the log and
    for operators. Clients and probes get the `summary`.
    """

    def __init__(self, summary: str, cause: str = "") -> None:
        super().__init__(f"{summary}: {cause}" if cause else summary)
        self.summary = summary
        self.cause = cause


class StoreFull(StoreUnavailable):
    """Raised when the memory of Redis is full or nearly so: what runs goes on, and nothing new is admitted."""

    def __init__(self, cause: str = "") -> None:
        super().__init__("The memory of Redis is full, and only what runs goes on; repeat the call later", cause)


class StoreForbidden(StoreUnavailable):
    """Raised when the access rules of Redis forbid its user a command. `commands` names those that are known."""

    def __init__(self, summary: str, cause: str = "", commands: tuple[str, ...] = ()) -> None:
        super().__init__(summary, cause)
        self.commands = commands


class StateLost(StoreError):
    """Raised when Redis answers, but has lost the data that was asked for."""

    error_type = ErrorType.STATE_LOST


class Fenced(LifecycleError):
    """Raised when this replica's lease has expired, or must be assumed to have. It rejoins under a new id."""

    error_type = ErrorType.FRONTEND_LOST


class ConfigurationConflict(LifecycleError):
    """Raised when a common setting (shards, lease time, version) differs from that of the living replicas."""


class EngineError(LifecycleError):
    """Raised by an engine that cannot answer a request. The client receives the message and the other parts.

    `status` is the HTTP status for the client; 400, 404, 408, 413, 422, 429, 500 and 504 are passed on, any
    other is told as 500. `type`, `code` and `param` are those of OpenAI's error object; `retry_after_secs` becomes
    `Retry-After`.
    """

    def __init__(
        self,
        message: str,
        status: int = 500,
        type: str | None = None,
        code: str | int | None = None,
        param: str | None = None,
        retry_after_secs: float | None = None,
    ) -> None:
        super().__init__(message, error_type=_TYPES_BY_STATUS.get(status, ErrorType.INTERNAL))
        self.detail = ErrorDetail(status, type, code, param, retry_after_secs)
        self.status, self.type, self.code, self.param = status, type, code, param
        self.retry_after_secs = retry_after_secs


class OutputTooLarge(EngineError):
    """Raised when an answer, or one event of it, is larger than allowed. Repeating the call would give the same."""

    def __init__(self, message: str) -> None:
        super().__init__(message, type=OUTPUT_TOO_LARGE)
        self.error_type = ErrorType.OVERLOAD


class Unavailable(LifecycleError):
    """Raised by an engine that cannot serve now: the request goes to another worker if it has produced nothing yet.

    A tracked source that raises it fails its request as `unavailable`. The library raises it when Redis is away, when
    no worker serves a model, and when the replica drains; `retry_after_secs` is then None where it is not known.
    """

    error_type = ErrorType.UNAVAILABLE

    def __init__(self, message: str, retry_after_secs: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_secs = retry_after_secs


class NotConnected(Unavailable):
    """Raised by an engine whose upstream cannot be connected to. The request uses up no attempt."""


class Overloaded(LifecycleError):
    """Raised when a limit refuses a request: a model's queue is full, or its owner has enough inflight.

    `retry_after_secs` says when a place may be free; None where that is not known.
    """

    error_type = ErrorType.OVERLOAD

    def __init__(self, message: str, retry_after_secs: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_secs = retry_after_secs


class NotFound(LifecycleError):
    """Raised when a request or replica is unknown: there never was one, or its record has expired."""

    error_type = ErrorType.NOT_FOUND


class ParentNotFound(NotFound):
    """Raised when the parent of a new request is unknown, or another owner's."""


class Conflict(LifecycleError):
    """Raised when the id of a new request is in use, its parent has ended badly, or the instructed replica drains."""

    error_type = ErrorType.VALIDATION


class ParentEnded(Conflict):
    """Raised when the parent of a new request failed, was cancelled or is being cancelled."""


class RequestFailed(LifecycleError):
    """Raised when a request that was read has failed or was cancelled.

    `error_type` is a member of ErrorType, such as `cancelled` or `worker_lost`, `message` is for people, and
    `request_id` names the request. `detail` has the parts of an engine's own error; None without any.
    """

    def __init__(
        self, error_type: ErrorType, message: str, request_id: str = "", detail: ErrorDetail | None = None
    ) -> None:
        super().__init__(message, error_type=error_type)
        self.request_id = request_id
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.error_type.value}: {self.message}"


class InvalidSetting(LifecycleError):
    """Raised when a setting is unknown, out of range, or contradicts another. The message is one line and names it."""

    error_type = ErrorType.VALIDATION


class InvalidValue(LifecycleError, ValueError):
    """Raised when an id, a position, a label or an option is malformed. The message shows the value.

    `param` is the name of the argument, None where the error is of no single one.
    """

    error_type = ErrorType.VALIDATION

    def __init__(self, message: str, *, error_type: ErrorType | None = None, param: str | None = None) -> None:
        super().__init__(message, error_type=error_type)
        self.param = param


_TYPES_BY_STATUS = {
    400: ErrorType.VALIDATION,
    404: ErrorType.NOT_FOUND,
    408: ErrorType.RESPONSE_TIMEOUT,
    413: ErrorType.VALIDATION,
    422: ErrorType.VALIDATION,
    429: ErrorType.OVERLOAD,
    502: ErrorType.UNAVAILABLE,
    503: ErrorType.UNAVAILABLE,
    504: ErrorType.RESPONSE_TIMEOUT,
}
