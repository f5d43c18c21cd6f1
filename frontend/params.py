"""Reading what a call brings besides its JSON: body within its limit, headers, query parameters."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from starlette.requests import Request

from frontend.errors import ApiError
from lifecycle.idempotency import KEY
from lifecycle.model import ErrorType, OnDisconnect
from lifecycle.monitor import Limits
from lifecycle.settings import Settings

BODY_TIMEOUT_SECS = 60.0
_LONGEST_SECS = 30 * 86_400.0


def bad(message: str, param: str) -> ApiError:
    return ApiError(ErrorType.VALIDATION, message, param=param)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises ApiError 413 above the limit, 408 when it does not come."""
    too_large = ApiError(
        ErrorType.VALIDATION, f"The request body is larger than {limit_bytes} bytes", status=413, code="body_too_large"
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECS):
            async for part in request.stream():
                size += len(part)
                if size > limit_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise ApiError(
            ErrorType.VALIDATION, f"The request body did not arrive within {BODY_TIMEOUT_SECS:g} seconds", status=408
        ) from None
    return b"".join(parts)


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
