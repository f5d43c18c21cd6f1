"""Exceptions, and the one table that gives each `ErrorType` its HTTP status and OpenAI `type`.

LifecycleError              what a caller may see; carries an error_type, a message and optionally a code
├── StoreError              Raised when Redis gave no usable answer
│   ├── StoreUnavailable    Raised when Redis cannot be reached, is loading, read-only or out of memory
│   └── StateLost           Raised when Redis answers, but has lost what was asked for
├── Fenced                  Raised when this replica's lease has expired and others have drawn the consequences
└── ConfigurationConflict   Raised when this replica's common settings differ from the cluster's
"""

from __future__ import annotations

from typing import NamedTuple

from lifecycle.types import ErrorType


class ErrorResponse(NamedTuple):
    """How an error type looks outside."""

    status: int  # HTTP status, also the frame's `code`
    type: str  # the OpenAI `type`


ERROR_RESPONSES: dict[ErrorType, ErrorResponse] = {
    ErrorType.VALIDATION: ErrorResponse(400, "invalid_request_error"),
    ErrorType.NOT_FOUND: ErrorResponse(404, "not_found_error"),
    ErrorType.OVERLOAD: ErrorResponse(429, "rate_limit_error"),
    ErrorType.UNAVAILABLE: ErrorResponse(503, "service_unavailable"),
    ErrorType.NOT_IMPLEMENTED: ErrorResponse(501, "not_implemented_error"),
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

STREAM_ENDED = "Disconnected: Stream ended before generation completed"


class LifecycleError(Exception):
    """Base of everything a user of the library may want to catch."""

    error_type: ErrorType = ErrorType.INTERNAL

    def __init__(self, message: str, *, error_type: ErrorType | None = None) -> None:
        super().__init__(message)
        self.message = message
        if error_type is not None:
            self.error_type = error_type


class StoreError(LifecycleError):
    error_type = ErrorType.UNAVAILABLE


class StoreUnavailable(StoreError):
    """Redis cannot be reached, is loading, read-only or out of memory. Repeating later may help."""


class StateLost(StoreError):
    """Redis answers, but no longer has what was asked for."""

    error_type = ErrorType.STATE_LOST


class Fenced(LifecycleError):
    """This replica was buried, its lease having expired, or must take itself for it. It comes back under a new id."""

    error_type = ErrorType.FRONTEND_LOST


class ConfigurationConflict(LifecycleError):
    """Replicas disagree on a setting that must be common (shards, lease times, version)."""
