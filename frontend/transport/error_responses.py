"""Answer failed calls, each in the form of the endpoint that its path belongs to."""

from __future__ import annotations

from fastapi import Request, Response
from starlette.types import Scope

from frontend.endpoints import endpoint_at
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.exception_handlers import to_response


def error_response(scope: Scope, error: ApiError) -> Response:
    """Return the response to the call of this scope."""
    return failure_response(Request(scope), error)


def failure_response(request: Request, failure: Exception) -> Response:
    """Return the response for the exception of a failed call: see `to_response`."""
    return to_response(request, failure, lambda error: _body(request.scope, error))


def _body(scope: Scope, error: ApiError) -> bytes:
    endpoint = endpoint_at(scope["path"])
    return error.body() if endpoint is None else endpoint.error_body(error, scope["state"]["request_id"])
