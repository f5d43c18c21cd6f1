"""Serve the dashboard's log-in: exchange an API key for a session cookie that no script can read."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response

from frontend.auth.policy import cross_origin, invalid_key, is_cross_origin
from frontend.auth.sessions import COOKIE
from frontend.transport import params
from frontend.transport.deps import get_access_policy, get_tracker
from frontend.transport.headers import headers_of
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.json_response import JsonResponse
from lifecycle.types import ErrorType

router = APIRouter()

_BODY_BYTES = 4096


@router.post("/login")
async def login(request: Request) -> Response:
    """Check the API key in the body `{"key": …}`; answer 204 and the cookie. Raises ApiError or StoreError."""
    if is_cross_origin(headers_of(request.scope)):
        raise cross_origin()
    policy = get_access_policy(request)
    if policy is None:
        raise ApiError(ErrorType.NOT_FOUND, "This frontend requires no API key, so it has no log-in", code="no_keys")
    key = policy.keyring.find(_key_in(await params.read_body(request, _BODY_BYTES)))
    if key is None:
        raise invalid_key()
    response = Response(status_code=204)
    max_age_secs = int(get_tracker(request).settings.session_secs)
    _set_cookie(request, response, await policy.sessions.begin(key), max_age_secs)
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Remove the cookie from the browser. Raises ApiError (403) for a call from another site's page."""
    if is_cross_origin(headers_of(request.scope)):
        raise cross_origin()
    response = Response(status_code=204)
    _set_cookie(request, response, "", 0)
    return response


@router.get("/v1/session")
async def session(request: Request) -> Response:
    """Say whether this frontend requires API keys and as whom the caller is authenticated. Raises StoreError."""
    policy = get_access_policy(request)
    if policy is None:
        return JsonResponse({"authentication": "off"})
    caller = await policy.caller(request.scope)
    if caller is None:
        return JsonResponse({"authentication": "on", "authenticated": False})
    return JsonResponse({"authentication": "on", "authenticated": True, "name": caller.name, "role": caller.role})


def _key_in(body: bytes) -> str:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise params.invalid_parameter("The body is not valid JSON", "body") from None
    key = content.get("key") if isinstance(content, dict) else None
    if not isinstance(key, str):
        raise params.invalid_parameter("key must be a string", "key")
    return key


def _set_cookie(request: Request, response: Response, value: str, max_age_secs: int) -> None:
    """Set the cookie, with `Secure` behind TLS.

    A proxy that terminates TLS sends X-Forwarded-Proto. A client that forges this header only makes its own cookie
    unusable.
    """
    https = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(COOKIE, value, max_age_secs, secure=https, httponly=True, samesite="strict")
