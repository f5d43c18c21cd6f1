"""Logging in to the dashboard: a key in exchange for a cookie that no script can read."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.auth.policy import comes_from_elsewhere, cross_origin, invalid_key
from frontend.auth.sessions import COOKIE
from frontend.transport import params
from frontend.transport.deps import get_access, get_tracker
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import ErrorType

router = APIRouter()

_BODY_BYTES = 4096


@router.post("/login")
async def login(request: Request) -> Response:
    """`{"key"}` → 204 and the cookie."""
    if comes_from_elsewhere(request.headers):
        raise cross_origin()
    access = get_access(request)
    if access is None:
        raise ApiError(ErrorType.NOT_FOUND, "There are no keys here, and nothing to log in to", code="no_keys")
    key = access.keyring.find(_key_in(await params.read_body(request, _BODY_BYTES)))
    if key is None:
        raise invalid_key()
    answer = Response(status_code=204)
    _set_cookie(request, answer, await access.sessions.begin(key), int(get_tracker(request).settings.session_secs))
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    if comes_from_elsewhere(request.headers):
        raise cross_origin()
    answer = Response(status_code=204)
    _set_cookie(request, answer, "", 0)
    return answer


@router.get("/v1/session")
async def session(request: Request) -> Response:
    """Who is calling, for a page that wants to know whether to ask for a key."""
    access = get_access(request)
    if access is None:
        return _json({"authentication": "off"})
    caller = await access.caller(request.scope)
    if caller is None:
        return _json({"authentication": "on", "authenticated": False})
    return _json({"authentication": "on", "authenticated": True, "name": caller.name, "role": caller.role})


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _key_in(body: bytes) -> str:
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise params.bad("The body is not valid JSON", "body") from None
    key = given.get("key") if isinstance(given, dict) else None
    if not isinstance(key, str):
        raise params.bad("key must be a string", "key")
    return key


def _set_cookie(request: Request, answer: Response, value: str, max_age_secs: int) -> None:
    """Behind a proxy that ends TLS the proxy says so; whoever makes that up locks out nobody but himself."""
    https = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    answer.set_cookie(COOKIE, value, max_age_secs, secure=https, httponly=True, samesite="strict")
