"""Describe the failure of an HTTP call: the status, the headers and OpenAI's error body."""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.errors import ERROR_RESPONSES, StoreError
from lifecycle.types import ErrorType

_RETRY_LATER = frozenset({429, 503})  # statuses
_DEFAULT_RETRY_AFTER_SECS = 1


def encodable(text: str) -> str:
    """Replace every lone surrogate, so that the text can be encoded as UTF-8 and as JSON.

    Texts of engines and exceptions may contain some. Two that form a pair become the character they stand for.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


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
        code: str | None = None,
        param: str | None = None,
        retry: bool | None = None,
        retry_after_secs: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        shape = ERROR_RESPONSES[error_type]
        self.error_type = error_type
        self.message = message
        self.status = shape.status if status is None else status
        self.type = shape.type
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
            headers["retry-after"] = str(self.retry_after_secs)
        elif self.status in _RETRY_LATER:
            headers["retry-after"] = str(_DEFAULT_RETRY_AFTER_SECS)
        return headers


def redis_unavailable(failure: StoreError) -> ApiError:
    """Return the error 503 for a call that Redis could not serve."""
    return ApiError(ErrorType.UNAVAILABLE, failure.message, code="redis_unavailable")


def _may_succeed_later(status: int) -> bool:
    """Return whether the cause may pass: a limit or a failure of the server, but not an invalid or unsupported call."""
    return status == 429 or (status >= 500 and status != 501)
