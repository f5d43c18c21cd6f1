"""Turn the exception of a failed HTTP call into its response, for calls through FastAPI and past it alike."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lifecycle.errors import Fenced, StoreError
from lifecycle.fastapi.errors import ApiError, redis_unavailable
from lifecycle.types import ErrorType

EXPECTED_EXCEPTIONS = (ApiError, StoreError, Fenced, HTTPException, ClientDisconnect)
"""Any other exception is a bug. It gets a response too, and the code that catches it logs it."""

REFUSAL = "refusal"
"""The key in the scope's state of why a call was refused, if it was; the reasons are a closed list."""

_REASONS = {404: "unknown_path", 405: "wrong_method"}  # of what the routes refuse


def to_response(request: Request, failure: Exception, body_of: Callable[[ApiError], bytes] = ApiError.body) -> Response:
    """Return the response for a failed call: `body_of` its error, or an empty 499 when the client has disconnected.

    The default body is OpenAI's.
    """
    if isinstance(failure, ClientDisconnect):
        return Response(status_code=499)  # raised while the body was read: no request was started
    error, more_headers = _to_api_error(request, failure), {}
    if error.request_id is None and error.error_type is not ErrorType.INTERNAL:
        reason = error.code or error.error_type.value
        request.scope["state"][REFUSAL] = str(reason)
    if isinstance(failure, HTTPException):
        request.scope["state"][REFUSAL] = _REASONS.get(error.status, "other")
        more_headers = dict(failure.headers or {})
    return Response(body_of(error), error.status, {**error.headers(), **more_headers})


def _to_api_error(request: Request, failure: Exception) -> ApiError:
    if isinstance(failure, ApiError):
        return failure
    if isinstance(failure, StoreError):
        return redis_unavailable(failure)
    if isinstance(failure, Fenced):
        return ApiError(ErrorType.UNAVAILABLE, failure.message, code="lease_lost")
    if isinstance(failure, HTTPException):
        kind = ErrorType.NOT_FOUND if failure.status_code == 404 else ErrorType.VALIDATION
        message = f"{request.method} {request.url.path}: {failure.detail}{_hint(request.url.path)}"
        return ApiError(kind, message, status=failure.status_code, code=None)
    return ApiError(ErrorType.INTERNAL, "An internal error occurred; the frontend's log has the details", retry=False)


def _hint(path: str) -> str:
    return "; the path has // in it: set the client's base URL without a slash at its end" if "//" in path else ""
