"""Write errors in Anthropic's form."""

from __future__ import annotations

from typing import Any

from lifecycle.encoding import encodable
from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.errors import shown_detail
from lifecycle.tokens.items import End
from lifecycle.types import ErrorType

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    502: "overloaded_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_CANCELLED = 499
_KNOWN = frozenset({*_TYPES.values(), "invalid_request_error", "api_error", "billing_error"})


def error_object(status: int, given_type: str | None, message: str, request_id: str) -> dict[str, Any]:
    """Return the body of an error, or the data of an `error` event.

    Its type follows from the HTTP status. For one that says little, an upstream's own type is kept if Anthropic's API
    has it.
    """
    kind = _TYPES.get(status)
    if kind is None and given_type in _KNOWN:
        kind = given_type
    if kind is None:
        kind = "api_error" if status >= _CANCELLED else "invalid_request_error"
    return {"type": "error", "error": {"type": kind, "message": encodable(message)}, "request_id": request_id}


def ended_badly(end: End, request_id: str) -> dict[str, Any]:
    """Return the data of the `error` event for a request that did not complete."""
    detail = shown_detail(end.detail)
    status = detail.status if detail else ERROR_RESPONSES[ErrorType(end.error_type)].status
    return error_object(status, detail.type if detail else None, end.message, request_id)
