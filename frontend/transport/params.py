"""Reading what a call brings besides its JSON: body within its limit, headers, query parameters."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request

from frontend.auth.api_keys import Caller
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.headers import headers_of
from lifecycle.ids import is_request_id
from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from lifecycle.tracking.idempotency import KEY
from lifecycle.types import CancelMode, ErrorType, Limits, OnDisconnect, RequestRecord

BODY_TIMEOUT_SECS = 60.0
LABEL_CHARS = 512
_LONGEST_SECS = 30 * 86_400.0
_OBJECT_BYTES = 64 * 1024
REASON_CHARS = 1024


def bad(message: str, param: str) -> ApiError:
    return ApiError(ErrorType.VALIDATION, message, param=param)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises ApiError 413 above the limit, 408 when it does not come."""
    declared = headers_of(request.scope).get("content-length", "0")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    here = ClientConnection.of(request.scope).body()
    if here is not None:
        if len(here) > limit_bytes:
            raise _too_large(limit_bytes)
        return here
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECS):
            async for part in request.stream():
                size += len(part)
                if size > limit_bytes:
                    raise _too_large(limit_bytes)
                parts.append(part)
    except TimeoutError:
        raise ApiError(
            ErrorType.VALIDATION, f"The request body did not arrive within {BODY_TIMEOUT_SECS:g} seconds", status=408
        ) from None
    return b"".join(parts)


def _too_large(limit_bytes: int) -> ApiError:
    message = f"The request body is larger than {limit_bytes} bytes"
    return ApiError(ErrorType.VALIDATION, message, status=413, code="body_too_large")


def on_disconnect(headers: Mapping[str, str], settings: Settings) -> OnDisconnect:
    given = headers.get("x-on-disconnect")
    if given is None:
        return settings.on_disconnect
    try:
        return OnDisconnect(given.strip().lower())
    except ValueError:
        raise bad("X-On-Disconnect must be cancel or continue", "X-On-Disconnect") from None


def grace_secs(headers: Mapping[str, str], settings: Settings) -> float:
    given = _seconds(headers, "X-Disconnect-Grace-Secs", zero=True)
    if given is not None:
        return given
    repeated_secs = settings.idempotency_grace_secs if "idempotency-key" in headers else 0.0
    return max(settings.disconnect_grace_secs, repeated_secs)


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    given = headers.get("idempotency-key")
    if given is not None and not KEY.fullmatch(given):
        raise bad("Idempotency-Key must be 1 to 255 visible ASCII characters", "Idempotency-Key")
    return given


def limits(headers: Mapping[str, str], settings: Settings) -> Limits:
    """The settings' limits, made shorter, never longer, by the headers."""

    def shorter(name: str, default_secs: float) -> float:
        given = _seconds(headers, name, zero=False)
        if given is None:
            return default_secs
        return min(given, default_secs) if default_secs > 0 else given

    return Limits(
        queue_secs=shorter("X-Queue-Timeout-Secs", settings.queue_timeout_secs),
        first_token_secs=shorter("X-First-Token-Timeout-Secs", settings.first_token_timeout_secs),
        deadline_secs=shorter("X-Deadline-Secs", settings.deadline_secs),
    )


def _seconds(headers: Mapping[str, str], name: str, *, zero: bool) -> float | None:
    text = headers.get(name.lower())
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value <= _LONGEST_SECS) or (value == 0 and not zero):
        raise bad(f"{name} must be a number of seconds, {'0' if zero else 'above 0'} to {_LONGEST_SECS:g}", name)
    return value


async def read_object(request: Request) -> dict[str, Any]:
    """A small JSON object; an empty body is an empty one."""
    body = await read_body(request, _OBJECT_BYTES)
    if not body.strip():
        return {}
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad("The body is not valid JSON", "body") from None
    if not isinstance(given, dict):
        raise bad("The body must be a JSON object", "body")
    return given


def text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str | None) or len(value or "") > LABEL_CHARS:
        raise bad(f"{name} must be a string of at most {LABEL_CHARS} characters", name)
    return value or ""


def one_of(value: str, name: str, allowed: Sequence[str]) -> str:
    """Or empty."""
    if value and value not in allowed:
        raise bad(f"{name} must be one of {', '.join(allowed)}", name)
    return value


def cancel_mode(asked: Mapping[str, Any]) -> CancelMode:
    return CancelMode(one_of(str(asked.get("mode") or CancelMode.KILL), "mode", tuple(CancelMode)))


def reason(asked: Mapping[str, Any]) -> str:
    given = asked.get("reason")
    if not isinstance(given, str | None) or len(given or "") > REASON_CHARS:
        raise bad(f"reason must be a string of at most {REASON_CHARS} characters", "reason")
    return given or "Cancelled by request"


async def known_request(store: Store, rid: str, caller: Caller) -> RequestRecord | None:
    """Where a listing goes on: the last request of the page before, None for the first page."""
    if not rid:
        return None
    record = await store.read(rid) if is_request_id(rid) else None
    if record is None or not caller.may_see(record.owner):
        raise bad(f"after: no request {rid[:128]!r} is known; it may have expired", "after")
    return record


def whole(value: Any, name: str, default: int, low: int, high: int) -> int:
    """A number as JSON has it, or its digits."""
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        raise bad(f"{name} must be a whole number from {low} to {high}", name)
    return integer(None if value is None else str(value), name, default, low, high)


def integer(text: str | None, name: str, default: int, low: int, high: int) -> int:
    if text is None:
        return default
    try:
        value = int(text) if text.isascii() else low - 1
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise bad(f"{name} must be a whole number from {low} to {high}", name)
    return value
