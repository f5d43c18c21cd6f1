"""Give every HTTP call a request id, and every response that id and the security headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.endpoints import BY_PATH
from frontend.transport.error_responses import error_response, id_headers, without_slash_at_end
from frontend.transport.headers import Headers, decode_headers
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.exception_handlers import REFUSAL
from lifecycle.ids import REQUEST_ID_CHARS, is_request_id, new_request_id
from lifecycle.types import ErrorType

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Defaults for every response. The dashboard's files and the event streams replace some of them."""


class RequestIdMiddleware:
    """Choose the id of each call and name it in the response. This is the outermost ASGI application.

    The id is the client's own `X-Request-Id`, which is checked, or a new one. It is kept in
    `scope["state"]["request_id"]`; a route may replace it there until the response starts. The call's headers are
    decoded here for all others.
    """

    def __init__(
        self,
        app: ASGIApp,
        more_headers: Callable[[Headers], Sequence[tuple[bytes, bytes]]],
        count_refusal: Callable[[int, str, str, str], None],
        *,
        takes_ids: bool,
    ) -> None:
        """Wrap the application.

        `more_headers` returns what else the response to a call with these headers carries. `count_refusal` is called
        for a refused call with the status, the reason, the method and the path. Without `takes_ids` the client's own
        `X-Request-Id` is ignored.
        """
        self._app = app
        self._more_headers = more_headers
        self._count_refusal = count_refusal
        self._takes_ids = takes_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"] = dict(scope.get("state") or {})  # a copy: servers may share it between calls
        path = scope["path"] = without_slash_at_end(_path_in(scope))
        endpoint = BY_PATH.get(path)
        prefix = endpoint.id_prefix if endpoint else "req-"
        call_headers = decode_headers(scope)
        client_id = call_headers.get("x-request-id") if self._takes_ids else None
        added = 0
        if client_id is not None and endpoint and endpoint.prefixes_client_ids and not client_id.startswith(prefix):
            client_id, added = prefix + client_id, len(prefix)
        valid = client_id is not None and is_request_id(client_id) and len(client_id) > added
        state["request_id"] = client_id if client_id and valid else new_request_id(prefix)
        names_of_id = (b"x-request-id", *endpoint.id_headers) if endpoint else id_headers(path)
        connection = ClientConnection.find(scope, receive)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                if message["status"] >= 400 and REFUSAL in state:
                    self._count_refusal(message["status"], state[REFUSAL], scope["method"], scope["path"])
                rid = state["request_id"].encode()
                headers += [(name, rid) for name in names_of_id]
                headers += [header for header in SECURITY if header[0] not in names]
                headers += self._more_headers(call_headers)
                if message["status"] == 200 and b"content-length" not in names and connection.begin(headers):
                    return
                message["headers"] = headers
            await send(message)

        try:
            if client_id is not None and not valid:
                message = (
                    f"X-Request-Id must be 1 to {REQUEST_ID_CHARS - added} characters of A-Z a-z 0-9 . _ -; "
                    "send another one, or none"
                )
                refusal = ApiError(ErrorType.VALIDATION, message, param="X-Request-Id")
                await error_response(scope, refusal)(scope, receive, send_with_headers)
                return
            await self._app(scope, receive, send_with_headers)
        finally:
            ClientConnection.take_out_of(scope)


def _path_in(scope: Scope) -> str:
    """Return the path inside this application, which may be mounted under another one."""
    path, above = scope["path"], scope.get("root_path", "")
    return (path.removeprefix(above) or "/") if above and f"{path}/".startswith(f"{above}/") else path
