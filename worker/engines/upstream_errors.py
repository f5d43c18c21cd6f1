"""Turn the errors of an OpenAI-compatible server into the exceptions that the worker reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from lifecycle.errors import EngineError, Unavailable

_MAX_MESSAGE_CHARS = 1000
NOT_CONNECTED = "cannot connect to the upstream"
NO_MESSAGE = "the upstream reported an error without a message; see its log"
KEY_REFUSED = "the upstream does not accept this server's API key; its operator must correct LIFECYCLE_OPENAI_API_KEY"
_KEY_REFUSED_STATUSES = (401, 403)
UNAVAILABLE_STATUSES = (502, 503)

Scrub = Callable[[str], str]


def error_message(body: bytes | dict[str, Any]) -> str:
    """Return the error message in an upstream's error body, 1000 characters at most, "" if there is none.

    All shapes in use are understood. A body that is not JSON is itself the message, unless it is a page of HTML.
    """
    found = _decode(body)
    # {"error": {"message"}}, {"error": "…"}, {"message"}, {"detail": "…"} or {"detail": […]}
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    if isinstance(found, dict | list):
        found = orjson.dumps(found).decode() if found else ""
    return str(found or "").strip()[:_MAX_MESSAGE_CHARS]


def response_error(status: int, body: bytes, retry_after: str | None, scrub: Scrub) -> EngineError | Unavailable:
    """Return the exception for a response with this status: Unavailable for 502 and 503, otherwise EngineError.

    `retry_after` is the header as it came.
    """
    message = error_message(body) or f"the upstream answered with status {status} and no message; see its log"
    return _error(status if status >= 400 else 500, message, _error_object(body), _seconds(retry_after), scrub)


def stream_error(body: bytes | dict[str, Any], scrub: Scrub, *, started: bool) -> EngineError | Unavailable:
    """Return the exception for an error that came in a response with a successful status.

    Its status is the one that the error object names, 500 without one. It is Unavailable for 502 and 503 unless events
    of the answer have come before it (`started`).
    """
    error = _error_object(body)
    named = (_error_status(error.get(name)) for name in ("code", "status", "status_code"))
    status = next((status for status in named if status), 500)
    return _error(status, error_message(body) or NO_MESSAGE, error, None, scrub, started=started)


def _error(
    status: int,
    message: str,
    error: dict[str, Any],
    retry_after_secs: float | None,
    scrub: Scrub,
    *,
    started: bool = False,
) -> EngineError | Unavailable:
    if status in _KEY_REFUSED_STATUSES:
        return EngineError(KEY_REFUSED, status)
    message = scrub(message)
    if status in UNAVAILABLE_STATUSES and not started:
        return Unavailable(message, retry_after_secs)
    kind, code, param = (error.get(name) for name in ("type", "code", "param"))
    return EngineError(
        message,
        status,
        type=scrub(kind) if isinstance(kind, str) and kind else None,
        code=scrub(code) if isinstance(code, str) and code else (code if type(code) is int else None),
        param=scrub(param) if isinstance(param, str) and param else None,
        retry_after_secs=retry_after_secs,
    )


def _error_object(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """Return the object that holds `type`, `code` and `param`; an empty one if there is none."""
    found = _decode(body)
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    return found if isinstance(found, dict) else {}


def _decode(body: bytes | dict[str, Any]) -> Any:
    """Return what a body holds: the JSON value, or its text if it is not JSON, '' for a page of HTML."""
    if not isinstance(body, bytes):
        return body
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return "" if body.lstrip().startswith(b"<") else body.decode(errors="replace")


def _error_status(value: object) -> int:
    """Return the HTTP status of an error that `value` names, as a number or as its digits; 0 if it names none."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    return value if type(value) is int and 400 <= value <= 599 else 0


def _seconds(retry_after: str | None) -> float | None:
    """Return the value of a `Retry-After` header, which is a number of seconds or a date; None if it is neither."""
    text = (retry_after or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
