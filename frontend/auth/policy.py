"""Who may call what. One table; what is not in it is the operators'.

A caller shows a key as `Authorization: Bearer`, or the cookie of a log-in. Without `LIFECYCLE_API_KEYS` nothing here
is in the way of a call, and everybody is `ANYBODY`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.auth.api_keys import Caller, Keyring, KeyRole
from frontend.auth.sessions import COOKIE, Sessions
from frontend.transport.request_id import error_response
from lifecycle.errors import StoreError
from lifecycle.fastapi.errors import ApiError, redis_away
from lifecycle.fastapi.headers import headers_of
from lifecycle.store.transitions import Store
from lifecycle.types import ErrorType

_SAFE = frozenset({"GET", "HEAD"})


class Level(IntEnum):
    """How much a caller must be to make a call."""

    ANYBODY = 0
    CLIENT = 1
    OPERATOR = 2


class Rule(NamedTuple):
    methods: str
    path: str  # as the routes write it
    level: Level
    why: str


RULES = (
    Rule("GET", "/live", Level.ANYBODY, "probes have no keys"),
    Rule("GET", "/ready", Level.ANYBODY, "probes have no keys"),
    Rule("GET", "/health", Level.ANYBODY, "probes have no keys"),
    Rule("GET", "/", Level.ANYBODY, "the page has no data in it, and a form to log in"),
    Rule("GET", "/dashboard/{name}", Level.ANYBODY, "the page's files"),
    Rule("POST", "/login", Level.ANYBODY, "checks the key itself"),
    Rule("POST", "/logout", Level.ANYBODY, "takes the caller's own cookie away"),
    Rule("GET", "/v1/session", Level.ANYBODY, "says who the caller is"),
    Rule("GET", "/openapi.json", Level.CLIENT, "describes the calls"),
    Rule("POST", "/v1/chat/completions", Level.CLIENT, "within its inflight limit"),
    Rule("POST", "/v1/completions", Level.CLIENT, "within its inflight limit"),
    Rule("GET", "/v1/models", Level.CLIENT, ""),
    Rule("GET", "/v1/models/{name:path}", Level.CLIENT, ""),
    Rule("POST", "/v1/requests/cancel", Level.CLIENT, "a client's own only"),
    Rule("GET", "/v1/requests", Level.CLIENT, "a client's own only"),
    Rule("GET DELETE", "/v1/requests/{rid}", Level.CLIENT, "a client's own, another's is unknown"),
    Rule("GET", "/v1/requests/{rid}/stream", Level.CLIENT, "a client's own, another's is unknown"),
    Rule("POST", "/v1/requests/{rid}/cancel", Level.CLIENT, "a client's own, another's is unknown"),
    Rule("GET", "/v1/inflight", Level.OPERATOR, "counts of all owners"),
    Rule("GET", "/v1/overview", Level.OPERATOR, "requests of all owners"),
    Rule("GET", "/v1/replicas", Level.OPERATOR, "hosts, addresses"),
    Rule("GET", "/metrics", Level.OPERATOR, "anybody with LIFECYCLE_PUBLIC_METRICS"),
)


class Access:
    """The keys, the log-ins and the table."""

    def __init__(self, keyring: Keyring, store: Store) -> None:
        self.keyring = keyring
        self.sessions = Sessions(keyring, store)
        self._rules = [(frozenset(rule.methods.split()), _pattern(rule.path), rule.level) for rule in RULES]
        if store.settings.public_metrics:
            self._rules.insert(0, (frozenset({"GET"}), _pattern("/metrics"), Level.ANYBODY))

    def level(self, method: str, path: str) -> Level:
        method = "GET" if method == "HEAD" else method
        for methods, pattern, level in self._rules:
            if method in methods and pattern.fullmatch(path):
                return level
        return Level.OPERATOR

    async def admit(self, scope: Scope, level: Level) -> Caller:
        """Raises ApiError: 401 without a key, 403 with too little of one."""
        caller = await self.caller(scope)
        if caller is None:
            raise invalid_key()
        if level is Level.OPERATOR and caller.role is not KeyRole.OPERATOR:
            raise _forbidden("This is for operators, and the key is a client's", "insufficient_permissions")
        return caller

    async def caller(self, scope: Scope) -> Caller | None:
        """By the key if one is shown, whatever the cookie says. Raises ApiError for what another site's page sent."""
        headers = headers_of(scope)
        shown = headers.get("authorization")
        if shown is not None:
            scheme, _, presented = shown.partition(" ")
            key = self.keyring.find(presented.strip()) if scheme.lower() == "bearer" else None
            return key.caller if key else None
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        caller = await self.sessions.caller(cookie) if cookie else None
        if caller is not None and scope["method"] not in _SAFE and not _is_same_origin(headers):
            raise cross_origin()
        return caller


class AccessMiddleware:
    """Puts the caller into `scope["state"]["caller"]`, or refuses the call."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            level = self._access.level(scope["method"], scope["path"])
            if level is not Level.ANYBODY:
                try:
                    scope["state"]["caller"] = await self._access.admit(scope, level)
                except ApiError as refusal:
                    await error_response(refusal)(scope, receive, send)
                    return
                except StoreError as failure:
                    await error_response(redis_away(failure))(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def comes_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another site's page sent it. Other clients say nothing."""
    return ("sec-fetch-site" in headers or "origin" in headers) and not _is_same_origin(headers)


def _is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a page of this very frontend sent it. Browsers say so, and no page can make them lie."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "-")


def cross_origin() -> ApiError:
    return _forbidden("A log-in counts only for calls from this frontend's own page", "cross_origin")


def _forbidden(message: str, code: str) -> ApiError:
    return ApiError(ErrorType.VALIDATION, message, status=403, code=code)


def invalid_key() -> ApiError:
    message = "Missing or unknown API key: send it as Authorization: Bearer KEY"
    return ApiError(ErrorType.VALIDATION, message, status=401, code="invalid_api_key")


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:path\}", ".*", path)))
