"""What a call that failed is answered, whichever way it came in."""

from __future__ import annotations

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lifecycle.errors import Fenced, StoreError
from lifecycle.fastapi.errors import ApiError, redis_away
from lifecycle.types import ErrorType

EXPECTED = (ApiError, StoreError, Fenced, HTTPException, ClientDisconnect)
"""Every other exception is a bug: it is answered too, and logged by whoever catches it."""


def answer(request: Request, failure: Exception) -> Response:
    if isinstance(failure, ClientDisconnect):
        return Response(status_code=499)  # before its body was whole: nothing was started
    error, more = _described(request, failure), {}
    if isinstance(failure, HTTPException):
        more = dict(failure.headers or {})
    return Response(error.body(), error.status, {**error.headers(), **more})


def _described(request: Request, failure: Exception) -> ApiError:
    if isinstance(failure, ApiError):
        return failure
    if isinstance(failure, StoreError):
        return redis_away(failure)
    if isinstance(failure, Fenced):
        return ApiError(ErrorType.UNAVAILABLE, failure.message, code="lease_lost")
    if isinstance(failure, HTTPException):
        kind = ErrorType.NOT_FOUND if failure.status_code == 404 else ErrorType.VALIDATION
        message = f"{request.method} {request.url.path}: {failure.detail}"
        return ApiError(kind, message, status=failure.status_code, code=None)
    return ApiError(ErrorType.INTERNAL, "An internal error occurred", retry=False)
