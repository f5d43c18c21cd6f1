"""Answer failed calls, each in the form of the endpoint that its path belongs to."""

from __future__ import annotations

from fastapi import Request, Response
from starlette.types import Scope

from frontend.endpoints import endpoint_at
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.exception_handlers import to_response


def error_response(scope: Scope, failure: Exception) -> Response:
    """Return the response to the call of this scope, which failed with this exception: see `to_response`."""
    return to_response(
        Request(scope), failure, lambda error: error_body(scope["path"], error, scope["state"]["request_id"])
    )


def error_body(path: str, error: ApiError, request_id: str) -> bytes:
    """Return the body in the form of the endpoint that the path belongs to, or OpenAI's."""
    endpoint = endpoint_at(path)
    return error.body() if endpoint is None else endpoint.error_body(error, request_id)


def id_headers(path: str) -> tuple[bytes, ...]:
    """Return the names of the headers that name the request in the response to a call of this path."""
    endpoint = endpoint_at(path)
    return (b"x-request-id", *(endpoint.id_headers if endpoint else ()))


def without_slash_at_end(path: str) -> str:
    """Return the path without the slash that some clients add, because a redirect would lose the call."""
    return path[:-1] if path[-1:] == "/" and path[-2:] not in ("/", "//") else path
