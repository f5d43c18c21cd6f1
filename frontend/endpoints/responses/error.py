"""Describe failures: of a response, as the response object does, and of calls that name one."""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.encoding import encodable
from lifecycle.fastapi.errors import ApiError, shown_detail
from lifecycle.types import ErrorDetail, ErrorType


def response_error(error_type: str, message: str | None, detail: ErrorDetail | None) -> dict[str, str]:
    """Return the field `error`. Its code is that of the engine or upstream if it is a string, else the error type."""
    shown = shown_detail(detail)
    code = shown.code if shown is not None and isinstance(shown.code, str) else str(error_type)
    return {"code": code, "message": encodable(message or "")}


def check_size(body: dict[str, Any], limit_bytes: int, together_with: str, advice: str, param: str) -> None:
    """Check a body to which something was added. Raises ApiError, 413, when it is larger than `limit_bytes`."""
    size = len(orjson.dumps(body))
    if size > limit_bytes:
        message = f"The body has {size} bytes together with {together_with}, and the limit is {limit_bytes}; {advice}"
        raise ApiError(ErrorType.VALIDATION, message, status=413, code="body_too_large", param=param)


def unknown_response(rid: str) -> ApiError:
    """Return the error 404 for a response that is not there, or that the caller may not see."""
    message = f"The response {rid[:128]!r} is unknown; it may have expired, or was deleted"
    return ApiError(ErrorType.NOT_FOUND, message, code="response_not_found")
