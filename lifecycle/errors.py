"""Exceptions, and the table that gives each `ErrorType` its HTTP status and OpenAI `type`.

LifecycleError              Base class: has an `error_type` and a `message`
├── StoreError              Raised when Redis gave no usable answer
│   ├── StoreUnavailable    Raised when Redis cannot be reached or refuses commands
│   │   └── StoreFull       Raised when the memory of Redis is full, so that nothing new is admitted
│   └── StateLost           Raised when Redis answers, but has lost the data
├── Fenced                  Raised when this replica's lease has expired
├── ConfigurationConflict   Raised when this replica's common settings differ from the cluster's
├── EngineError             Raised by an engine that cannot answer a request
└── Unavailable             Raised by an engine that cannot serve now
    └── NotConnected        Raised by an engine whose upstream cannot be connected to
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


class OutputTooLarge(EngineError):
    """Raised when an answer, or one event of it, is larger than allowed. Repeating the call would give the same."""

    def __init__(self, message: str) -> None:
        super().__init__(message, type=OUTPUT_TOO_LARGE)
        self.error_type = ErrorType.OVERLOAD


class Unavailable(LifecycleError):
    """Raised by an engine that cannot serve now: the request goes to another worker if it has produced nothing yet."""

    error_type = ErrorType.UNAVAILABLE

    def __init__(self, message: str, retry_after_secs: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_secs = retry_after_secs


class NotConnected(Unavailable):
    """Raised by an engine whose upstream cannot be connected to. The request uses up no attempt."""


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
