"""Pure ASGI middleware: every response names its request and is safe in a browser; a client's own id is checked."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.headers import headers_of
from lifecycle.ids import is_request_id, new_request_id
from lifecycle.types import ErrorType

PREFIXES = {"/v1/chat/completions": "chatcmpl", "/v1/completions": "cmpl"}

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""On every response that does not say otherwise: the dashboard may load its own files, a stream not be altered."""


class RequestIdMiddleware:
    """Puts the id into `scope["state"]["request_id"]`, and what is there then on the response as `X-Request-Id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        given = headers_of(scope).get("x-request-id")
        valid = given is not None and is_request_id(given)
        state["request_id"] = given if given and valid else new_request_id(PREFIXES.get(scope["path"], "req"))
        peer = ClientConnection.of(scope)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                headers.append((b"x-request-id", state["request_id"].encode()))
                headers += [header for header in SECURITY if header[0] not in names]
                if message["status"] == 200 and b"content-length" not in names and peer.begin(headers):
                    return
                message["headers"] = headers
            await send(message)

        if given is not None and not valid:
            refusal = ApiError(
                ErrorType.VALIDATION, "X-Request-Id must be 1 to 128 of A-Z a-z 0-9 . _ -", param="X-Request-Id"
            )
            await error_response(refusal)(scope, receive, send_named)
            return
        await self._app(scope, receive, send_named)


def error_response(error: ApiError) -> ASGIApp:
    from starlette.responses import Response

    return Response(error.body(), error.status, error.headers())
