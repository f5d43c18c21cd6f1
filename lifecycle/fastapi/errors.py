"""What a call answers when it cannot be served: an HTTP status, headers, and the OpenAI error body."""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.errors import ERROR_RESPONSES, StoreError
from lifecycle.types import ErrorType

_RETRIED_LATER = frozenset({429, 503})
_DEFAULT_RETRY_AFTER_SECS = 1


def encodable(text: str) -> str:
    """The text with every lone surrogate replaced, so that it has a UTF-8 and therefore a JSON form.

    Engines and exceptions may carry such text. Two halves that stand side by side become their character.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class ApiError(Exception):
    """Ends a call before a response has begun.

    `status` defaults to the error type's own, `retry` to whether repeating the identical call can help.
    `request_id` is set for a request that was admitted and then failed; its body names the request and
    the `error_type`, as the error frame of a stream does.
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
        self.retry = _worth_repeating(self.status) if retry is None else retry
        self.retry_after_secs = retry_after_secs
        self.request_id = request_id

    def body(self) -> bytes:
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
        """Names are lower case, as ASGI wants them."""
        headers = {"content-type": "application/json"}
        if not self.retry:
            # The SDKs repeat 408, 409, 429 and every 5xx by themselves unless told not to.
            headers["x-should-retry"] = "false"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after_secs is not None:
            headers["retry-after"] = str(self.retry_after_secs)
        elif self.status in _RETRIED_LATER:
            headers["retry-after"] = str(_DEFAULT_RETRY_AFTER_SECS)
        return headers


def redis_away(failure: StoreError) -> ApiError:
    return ApiError(ErrorType.UNAVAILABLE, failure.message, code="redis_unavailable")


def _worth_repeating(status: int) -> bool:
    """4xx is the caller's doing and 501 does not pass; only a limit or a server's trouble does."""
    return status == 429 or (status >= 500 and status != 501)
