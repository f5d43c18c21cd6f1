"""Let the pages of the origins in LIFECYCLE_CORS_ORIGINS call this frontend and read its responses.

Neither cookies nor log-ins are shared with them: their calls need an API key where the frontend asks for keys.
"""

from __future__ import annotations

import re

from starlette.types import Receive, Scope, Send

from frontend.transport.error_responses import error_response
from frontend.transport.headers import Headers
from lifecycle.fastapi.errors import ApiError
from lifecycle.settings import Settings
from lifecycle.site_names import ANY, parse_origins
from lifecycle.types import ErrorType

_METHODS = b"GET, HEAD, POST, DELETE"
_EXPOSED = b"X-Request-Id, Retry-After, X-Should-Retry, Idempotent-Replayed"
_REQUEST_HEADERS = (
    "authorization, content-type, accept, x-request-id, x-parent-request-id, idempotency-key, last-event-id, "
    "x-on-disconnect, x-disconnect-grace-secs, x-queue-timeout-secs, x-first-token-timeout-secs, x-deadline-secs, "
    "x-api-key"
)
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'+.^_`|~-]{1,128}")
_MOST_HEADERS = 100
_MAX_AGE_SECS = b"600"


class Cors:
    """Answer the questions of browsers about calls from other origins."""

    def __init__(self, settings: Settings) -> None:
        self._origins = parse_origins(settings.cors_origins)

    @property
    def is_on(self) -> bool:
        """Return whether any origin is named."""
        return bool(self._origins)

    def allows(self, origin: str) -> bool:
        """Return whether pages of this origin may call."""
        return ANY in self._origins or origin.lower() in self._origins

    def response_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return what the response to a call with these headers carries, whatever its status."""
        if not self._origins:
            return []
        origin = headers.get("origin")
        varies = [] if ANY in self._origins else [(b"vary", b"Origin")]
        if origin is None or not self.allows(origin):
            return varies
        allowed = b"*" if ANY in self._origins else origin.encode("latin-1")
        return [
            *varies,
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED),
        ]

    async def answer_preflight(self, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the OPTIONS that a browser sends before a call from another origin. It needs no API key."""
        origin = headers.get("origin", "")
        if not self.allows(origin):
            message = f"Pages of {origin[:256]!r} may not call this frontend; name the origin in LIFECYCLE_CORS_ORIGINS"
            refusal = ApiError(ErrorType.VALIDATION, message, status=403, code="origin_not_allowed")
            await error_response(scope, refusal)(scope, receive, send)
            return
        answer = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _allowed_headers(headers).encode("latin-1")),
            (b"access-control-max-age", _MAX_AGE_SECS),
        ]
        if headers.get("access-control-request-private-network") == "true":
            answer.append((b"access-control-allow-private-network", b"true"))
        await send({"type": "http.response.start", "status": 204, "headers": answer})
        await send({"type": "http.response.body", "body": b""})


def is_preflight(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser asks if a page of another origin may make a call."""
    return scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _allowed_headers(headers: Headers) -> str:
    """Return the known headers and those that the page asks for, because client libraries add their own.

    Which headers a page sends matters only for origins that the setting does not name.
    """
    asked = headers.get("access-control-request-headers", "").lower().split(",")[:_MOST_HEADERS]
    known = _REQUEST_HEADERS.split(", ")
    more = [name for name in map(str.strip, asked) if _HEADER_NAME.fullmatch(name) and name not in known]
    return ", ".join((*known, *more))
