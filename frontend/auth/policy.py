"""Decide which callers may make which HTTP calls, by one table. Calls that are not in it do not exist for anybody.

A caller authenticates with an API key (`Authorization: Bearer KEY`, or `x-api-key: KEY` as Anthropic's SDKs send it) or
with the cookie of a dashboard session. Without `LIFECYCLE_API_KEYS` there is no policy: every call is allowed and its
caller is `ANYBODY`.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.auth.sessions import COOKIE, Sessions
from frontend.endpoints import BY_PATH
from frontend.transport.error_responses import error_response
from frontend.transport.headers import Headers, headers_of
from lifecycle.errors import StoreError
from lifecycle.fastapi.api_keys import Keyring
from lifecycle.fastapi.caller import Caller, KeyRole
from lifecycle.fastapi.errors import ApiError
from lifecycle.store.transitions import Store
from lifecycle.types import ErrorType, ReplicaAction

_SAFE = frozenset({"GET", "HEAD"})


class Level(IntEnum):
    """Rank calls by the least role that they need."""

    ANYBODY = 0
    CLIENT = 1
    OPERATOR = 2


class Rule(NamedTuple):
    """Describe one row of the table."""

    methods: str  # separated by spaces
    path: str  # in the notation of the routes
    level: Level
    why: str


RULES = (
    Rule("GET", "/live", Level.ANYBODY, "probes have no keys"),
    Rule("GET", "/ready", Level.ANYBODY, "probes have no keys"),
    Rule("GET", "/health", Level.ANYBODY, "probes have no keys"),
    Rule("GET", "/", Level.ANYBODY, "the page contains no data; it has the log-in form"),
    Rule("GET", "/dashboard/{name}", Level.ANYBODY, "the page's files"),
    Rule("POST", "/login", Level.ANYBODY, "checks the key in its body"),
    Rule("POST", "/logout", Level.ANYBODY, "removes the caller's own cookie"),
    Rule("GET", "/v1/session", Level.ANYBODY, "tells callers how they are authenticated"),
    Rule("GET", "/openapi.json", Level.CLIENT, "describes the calls"),
    *(Rule("POST", path, Level.CLIENT, "within its inflight limit") for path in BY_PATH),
    Rule("GET", "/v1/models", Level.CLIENT, ""),
    Rule("GET", "/v1/models/{name:path}", Level.CLIENT, ""),
    Rule("POST", "/v1/requests/cancel", Level.CLIENT, "a client sees its own only"),
    Rule("GET", "/v1/requests", Level.CLIENT, "a client sees its own only"),
    Rule("GET DELETE", "/v1/requests/{rid}", Level.CLIENT, "a client sees its own only"),
    Rule("GET", "/v1/requests/{rid}/timeline", Level.CLIENT, "a client sees its own only"),
    Rule("GET", "/v1/requests/{rid}/tree", Level.CLIENT, "a client sees its own only"),
    Rule("GET", "/v1/requests/{rid}/stream", Level.CLIENT, "a client sees its own only"),
    Rule("POST", "/v1/requests/{rid}/cancel", Level.CLIENT, "a client sees its own only"),
    Rule("GET DELETE", "/v1/responses/{rid}", Level.CLIENT, "a client sees its own only"),
    Rule("POST", "/v1/responses/{rid}/cancel", Level.CLIENT, "a client sees its own only"),
    Rule("GET", "/v1/responses/{rid}/input_items", Level.CLIENT, "a client sees its own only"),
    Rule("GET", "/v1/inflight", Level.OPERATOR, "shows the counts of all owners"),
    Rule("GET", "/v1/overview", Level.OPERATOR, "shows the requests of all owners"),
    Rule("GET", "/v1/queue", Level.OPERATOR, "shows all owners"),
    Rule("GET", "/v1/replicas", Level.OPERATOR, "shows hosts and URLs"),
    *(
        Rule("POST", f"/v1/replicas/{{id}}/{action}", Level.OPERATOR, "ends or holds what serves all owners")
        for action in ReplicaAction
    ),
    Rule("GET", "/metrics", Level.OPERATOR, "for anybody with LIFECYCLE_PUBLIC_METRICS"),
)


class AccessPolicy:
    """Authenticate callers and check their calls against the table."""

    def __init__(self, keyring: Keyring, store: Store) -> None:
        self.keyring = keyring
        self.sessions = Sessions(keyring, store)
        self._rules = [(frozenset(rule.methods.split()), _pattern(rule.path), rule.level) for rule in RULES]
        if store.settings.public_metrics:
            self._rules.insert(0, (frozenset({"GET"}), _pattern("/metrics"), Level.ANYBODY))

    def level(self, method: str, path: str) -> Level:
        """Return the level of a call; HEAD counts as GET.

        Raises HTTPException as the routes do, so that a key changes nothing about what does not exist: 404 for an
        unknown path, 405 for another method of a known one.
        """
        method = "GET" if method == "HEAD" else method
        for methods, pattern, level in self._rules:
            if method in methods and pattern.fullmatch(path):
                return level
        allowed = {name for methods, pattern, _ in self._rules if pattern.fullmatch(path) for name in methods}
        if not allowed:
            raise HTTPException(404)
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})

    async def authorize(self, scope: Scope, level: Level) -> Caller:
        """Return the caller if it may make a call of this level.

        Raises ApiError: 401 without a valid key or session, 403 when the caller's role does not suffice or another
        site's page sent the call. Raises StoreError.
        """
        caller = await self.caller(scope)
        if caller is None:
            raise invalid_key()
        if level is Level.OPERATOR and caller.role is not KeyRole.OPERATOR:
            raise _forbidden("This call needs an API key with the role operator", "insufficient_permissions")
        return caller

    async def caller(self, scope: Scope) -> Caller | None:
        """Return the caller by its API key if the call has one, else by its session cookie; None if that is not valid.

        Raises ApiError (403) when another site's page sent the cookie with a call that changes something. Raises
        StoreError.
        """
        headers = headers_of(scope)
        presented = _presented_key(headers)
        if presented is not None:
            key = self.keyring.find(presented)
            return key.caller if key else None
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        caller = await self.sessions.caller(cookie) if cookie else None
        if caller is not None and scope["method"] not in _SAFE and not _is_same_origin(headers):
            raise cross_origin()
        return caller


class AuthorizationMiddleware:
    """Store the caller in `scope["state"]["caller"]`, or answer with an error when it may not make the call."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                level = self._policy.level(scope["method"], scope["path"])
                if level is not Level.ANYBODY:
                    scope["state"]["caller"] = await self._policy.authorize(scope, level)
            except (ApiError, StoreError, HTTPException) as failure:
                await error_response(scope, failure)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _presented_key(headers: Headers) -> str | None:
    """Return the API key that a call presents, '' for another kind of authorization; None if it presents nothing."""
    authorization = headers.get("authorization")
    if authorization is None:
        return headers.get("x-api-key")
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def is_cross_origin(headers: Headers) -> bool:
    """Return whether a browser declares that another site's page sent the call. Other clients declare nothing."""
    return ("sec-fetch-site" in headers or "origin" in headers) and not _is_same_origin(headers)


def _is_same_origin(headers: Headers) -> bool:
    """Return whether a browser declares that this frontend's own page sent the call. Pages cannot forge this."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "-")


def cross_origin() -> ApiError:
    """Return the error 403 for a call that another site's page sent."""
    message = "Another site's page sent this call; a session is valid only for this frontend's own page"
    return _forbidden(message, "cross_origin")


def _forbidden(message: str, code: str) -> ApiError:
    return ApiError(ErrorType.VALIDATION, message, status=403, code=code)


def invalid_key() -> ApiError:
    """Return the error 401 for a call without a valid API key."""
    message = "The API key is missing or unknown; send it as Authorization: Bearer KEY, or as x-api-key: KEY"
    return ApiError(ErrorType.VALIDATION, message, status=401, code="invalid_api_key")


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:path\}", ".*", path)))
