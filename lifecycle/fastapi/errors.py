"""Describe the failure of an HTTP call: the status, the headers and OpenAI's error body."""

from __future__ import annotations

import math
import random
from typing import Any

import orjson

from lifecycle.encoding import encodable
from lifecycle.errors import ERROR_RESPONSES, OUTPUT_TOO_LARGE, StoreError, StoreFull, StoreUnavailable
from lifecycle.tokens.items import End
from lifecycle.types import ErrorDetail, ErrorType

_RETRY_LATER = frozenset({429, 503})  # statuses
_KEPT_STATUSES = frozenset({400, 404, 408, 413, 422, 429, 500, 504})  # of an engine's or upstream's own error
_ELSEWHERE_STATUSES = frozenset({502, 503})  # another upstream might have answered
_OUR_KEY_STATUSES = frozenset({401, 403})  # the upstream refuses the worker's key, which is not the client's fault


def retry_soon() -> str:
    """Return a `Retry-After` for a cause whose end is not known: 1 to 3 seconds, at random, to spread repetitions."""
    return str(random.randint(1, 3))


class ApiError(Exception):
    """Raised when a call fails before its response has begun.

    `status` defaults to that of the error type; `retry`, whether repeating the identical call may succeed, follows
    from the status by default. `request_id` is given for a request that was admitted and then failed: the body then
    contains it and the `error_type`, as the error frame of a stream does.
    """

    def __init__(
        self,
        error_type: ErrorType,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | int | None = None,
        param: str | None = None,
        retry: bool | None = None,
        retry_after_secs: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        shape = ERROR_RESPONSES[error_type]
        self.error_type = error_type
        self.message = message
        self.status = shape.status if status is None else status
        self.type = shape.type if type is None else type
        self.code = code
        self.param = param
        self.retry = _may_succeed_later(self.status) if retry is None else retry
        self.retry_after_secs = retry_after_secs
        self.request_id = request_id

    def body(self) -> bytes:
        """Return the response body as JSON."""
        error: dict[str, Any] = {
            "message": encodable(self.message),
            "type": self.type,
            "code": self.code,
            "param": self.param,
        }
        if self.request_id is not None:
            error |= {"error_type": self.error_type, "request_id": self.request_id}
        return orjson.dumps({"error": error})

    def headers(self) -> dict[str, str]:
        """Return the response headers, with names in lower case as ASGI requires."""
        headers = {"content-type": "application/json"}
        if not self.retry:
            # Without this header OpenAI's SDKs repeat calls with 408, 409, 429 and 5xx on their own.
            headers["x-should-retry"] = "false"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after_secs is not None:
            headers["retry-after"] = str(math.ceil(self.retry_after_secs))
        elif self.status in _RETRY_LATER:
            headers["retry-after"] = retry_soon()
        return headers


def failed_request(end: End, request_id: str, retry: bool | None) -> ApiError:
    """Return the error for a request that failed before its response began.

    The parts of an engine's or upstream's own error are kept: its status if clients can make use of it, and its `type`,
    `code`, `param` and Retry-After. `retry` is as for ApiError.
    """
    error_type, detail = ErrorType(end.error_type), shown_detail(end.detail)
    if detail is None:
        return ApiError(error_type, end.message, request_id=request_id, retry=False if end.detail else retry)
    status = 503 if detail.status in _ELSEWHERE_STATUSES else detail.status
    after_secs = detail.retry_after_secs
    if status == 503:
        after_secs = max(after_secs, 1.0) if after_secs else None
    if detail.type == OUTPUT_TOO_LARGE:
        retry = False
    return ApiError(
        error_type,
        end.message,
        status=status,
        type=detail.type,
        code=detail.code,
        param=detail.param,
        retry=retry,
        retry_after_secs=after_secs,
        request_id=request_id,
    )


def error_frame(error_type: ErrorType, message: str, request_id: str, detail: ErrorDetail | None = None) -> bytes:
    """Return the server-sent event that reports the failure of a request whose response has begun."""
    return b"data: " + error_object(error_type, message, request_id, detail) + b"\n\n"


def error_object(error_type: ErrorType, message: str, request_id: str, detail: ErrorDetail | None = None) -> bytes:
    """Return the JSON object that reports the failure of a request whose response has begun.

    `detail` is of an engine's or upstream's own error. The `code` is its code if that is a string, else the status.
    """
    shape, shown = ERROR_RESPONSES[error_type], shown_detail(detail)
    kind: str = shape.type
    code: str | int = shape.status
    if shown is not None:
        kind = shown.type or kind
        code = shown.code if isinstance(shown.code, str) else shown.status
    error = {
        "message": encodable(message),
        "type": kind,
        "code": code,
        "param": shown.param if shown else None,
        "error_type": error_type,
        "request_id": request_id,
    }
    return orjson.dumps({"error": error})


def shown_detail(detail: ErrorDetail | None) -> ErrorDetail | None:
    """Return what a client may see of the detail: an unusual status becomes 500; None for a refusal of our own key."""
    if detail is None or detail.status in _OUR_KEY_STATUSES:
        return None
    if detail.status in _KEPT_STATUSES or detail.status in _ELSEWHERE_STATUSES:
        return detail
    return detail._replace(status=500)


def redis_unavailable(failure: StoreError) -> ApiError:
    """Return the error 503 for a call that Redis could not serve. It names no address."""
    if isinstance(failure, StoreFull):
        return ApiError(ErrorType.UNAVAILABLE, failure.summary, code="memory_full")
    return ApiError(ErrorType.UNAVAILABLE, summary_of(failure), code="redis_unavailable")


def summary_of(failure: StoreError) -> str:
    """Return what clients and probes may read of an error of Redis: nothing that could contain an address."""
    return failure.summary if isinstance(failure, StoreUnavailable) else failure.message


def _may_succeed_later(status: int) -> bool:
    """Return whether the cause may pass: a time, a limit or a failure of the server, but not an invalid call."""
    return status in (408, 429) or status >= 500
