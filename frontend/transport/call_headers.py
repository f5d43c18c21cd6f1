"""Read the headers of a completion call into one checked value."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import orjson

from frontend.transport.headers import Headers
from frontend.transport.params import invalid_parameter
from lifecycle.fastapi.errors import ApiError
from lifecycle.header_selection import HeaderSelection
from lifecycle.ids import REQUEST_ID_CHARS, is_request_id
from lifecycle.settings import PerSettings, Settings, environment_name
from lifecycle.telemetry import tracing
from lifecycle.tracking.idempotency import KEY
from lifecycle.types import ErrorType, Limits, OnDisconnect
from lifecycle.webhooks.target import HostList, Target

_MAX_SECS = 30 * 86_400.0
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SHOWN_CHARACTERS = 50
_MAX_FORWARDED_BYTES = 8 * 1024
_CLIENT_TIMEOUTS = ("x-stainless-read-timeout", "x-stainless-timeout")
"""In seconds, of the SDKs that Stainless generates: those for Python, and for Node.js."""
_GRACE = "x-disconnect-grace-secs"
_QUEUE_TIMEOUT, _FIRST_TOKEN_TIMEOUT = "x-queue-timeout-secs", "x-first-token-timeout-secs"
_DEADLINE = "x-deadline-secs"
_READ = frozenset(
    {
        "x-request-id",
        "idempotency-key",
        "x-on-disconnect",
        _GRACE,
        _QUEUE_TIMEOUT,
        _FIRST_TOKEN_TIMEOUT,
        _DEADLINE,
        *_CLIENT_TIMEOUTS,
        "traceparent",
        "x-parent-request-id",
        "x-webhook-url",
    }
)
"""The headers that CallHeaders has a field for."""


class CallHeaders(NamedTuple):
    """Hold the checked headers of one completion call. Where the client sent none, the frontend's settings apply."""

    request_id: str | None  # the client's own X-Request-Id, unless it is ignored
    idempotency_key: str | None
    on_disconnect: OnDisconnect
    grace_secs: float
    limits: Limits
    traceparent: str  # '' without a trace
    forwarded: bytes  # the headers for the engine, as a JSON object; '' for none
    parent: str = ""  # the id of the request that started this one; '' for none
    webhook_url: str = ""  # gets an event at the end of the request; '' for none

    @classmethod
    def parse(cls, headers: Headers, settings: Settings, forwarded: frozenset[str] = frozenset()) -> CallHeaders:
        """Check and convert the headers. Those that `forwarded` names reach the engine, besides the setting's.

        Raises ApiError (400) that names the first invalid header in `param`.
        """
        usual = _USUAL.of(settings)
        if _READ.isdisjoint(headers):  # as for most calls
            for_engine, traceparent = _forwarded(headers, usual.selection, forwarded), tracing.incoming("")
            if not (for_engine or traceparent):
                return usual.headers
            return usual.headers._replace(forwarded=for_engine, traceparent=traceparent)
        key = _idempotency_key(headers)
        return cls(
            request_id=headers.get("x-request-id") if settings.request_id_header else None,
            idempotency_key=key,
            on_disconnect=_on_disconnect(headers, settings),
            grace_secs=_grace_secs(headers, settings, is_repeatable=key is not None),
            limits=_limits(headers, settings),
            traceparent=tracing.incoming(headers.get("traceparent", "")),
            forwarded=_forwarded(headers, usual.selection, forwarded),
            parent=_parent(headers),
            webhook_url=_webhook_url(headers, settings),
        )


class _Usual(NamedTuple):
    """Hold what the settings say about every call, and about one that brings none of these headers."""

    headers: CallHeaders
    selection: HeaderSelection  # LIFECYCLE_FORWARD_HEADERS

    @classmethod
    def of(cls, settings: Settings) -> _Usual:
        limits = Limits(settings.queue_timeout_secs, settings.first_token_timeout_secs, settings.deadline_secs)
        headers = CallHeaders(None, None, settings.on_disconnect, settings.disconnect_grace_secs, limits, "", b"")
        return cls(headers, HeaderSelection.parse(settings.forward_headers))


_USUAL = PerSettings(_Usual.of)


def _idempotency_key(headers: Headers) -> str | None:
    value = headers.get("idempotency-key")
    if value is not None and not KEY.fullmatch(value):
        raise invalid_parameter("Idempotency-Key must be 1 to 255 visible ASCII characters", "Idempotency-Key")
    return value


def _forwarded(headers: Headers, selection: HeaderSelection, names: frozenset[str]) -> bytes:
    """Return the headers that the selection or `names` select, as a JSON object. Raises ApiError (431)."""
    if names:
        selection = selection._replace(names=selection.names | names)
    selected = selection.select(headers)
    if not selected:
        return b""
    size = sum(len(name) + len(value) for name, value in selected.items())
    if size > _MAX_FORWARDED_BYTES:
        raise ApiError(
            ErrorType.VALIDATION,
            f"The headers for the engine ({', '.join(selected)}) have {size} bytes in all; "
            f"send at most {_MAX_FORWARDED_BYTES}",
            status=431,
            code="headers_too_large",
        )
    return orjson.dumps(selected)


def _webhook_url(headers: Headers, settings: Settings) -> str:
    """Return the canonical form of the URL. Raises ApiError (400) when the operator does not allow it."""
    value, name = headers.get("x-webhook-url"), "X-Webhook-Url"
    if value is None:
        return ""
    hosts, setting = HostList.parse(settings.webhook_hosts), environment_name("webhook_hosts")
    if not hosts.names and not hosts.suffixes:
        raise invalid_parameter(f"{name} is off here: {setting} names no host; leave the header out", name)
    try:
        target = Target.parse(value.strip(), allow_private=settings.webhook_private_addresses)
    except ValueError as failure:
        raise invalid_parameter(f"{name}: {failure}", name) from None
    if not hosts.allows(target.host):
        raise invalid_parameter(f"{name}: {setting} does not name its host; use one that it names", name)
    return target.url


def _parent(headers: Headers) -> str:
    value = headers.get("x-parent-request-id")
    if value is not None and not is_request_id(value):
        raise invalid_parameter(
            f"X-Parent-Request-Id must be 1 to {REQUEST_ID_CHARS} characters of A-Z a-z 0-9 . _ -; "
            "send the id of the request that makes this call, or none",
            "X-Parent-Request-Id",
        )
    return value or ""


def _on_disconnect(headers: Headers, settings: Settings) -> OnDisconnect:
    value = headers.get("x-on-disconnect")
    if value is None:
        return settings.on_disconnect
    try:
        return OnDisconnect(value.strip().lower())
    except ValueError:
        raise invalid_parameter("X-On-Disconnect must be cancel or continue", "X-On-Disconnect") from None


def _grace_secs(headers: Headers, settings: Settings, *, is_repeatable: bool) -> float:
    value = _seconds(headers, _GRACE, zero=True)
    if value is not None:
        return value
    return max(settings.disconnect_grace_secs, settings.idempotency_grace_secs if is_repeatable else 0.0)


def _limits(headers: Headers, settings: Settings) -> Limits:
    """Return the settings' limits, which a header can shorten but not extend."""

    def shorter(name: str, default_secs: float) -> float:
        value = _seconds(headers, name, zero=False)
        if value is None:
            return default_secs
        return min(value, default_secs) if default_secs > 0 else value

    return Limits(
        queue_secs=shorter(_QUEUE_TIMEOUT, settings.queue_timeout_secs),
        first_token_secs=shorter(_FIRST_TOKEN_TIMEOUT, settings.first_token_timeout_secs),
        deadline_secs=_with_client_timeout(headers, shorter(_DEADLINE, settings.deadline_secs), settings),
    )


def _with_client_timeout(headers: Headers, deadline_secs: float, settings: Settings) -> float:
    """Return the deadline, or the timeout that an SDK declares, if that is wanted and shorter. Malformed is none."""
    for name in _CLIENT_TIMEOUTS if settings.adopt_client_timeout else ():
        timeout_secs = _number(headers.get(name, ""))
        if 0 < timeout_secs <= _MAX_SECS:
            return min(timeout_secs, deadline_secs) if deadline_secs > 0 else timeout_secs
    return deadline_secs


def _seconds(headers: Headers, name: str, *, zero: bool) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    value = _number(text)
    if not (0 <= value <= _MAX_SECS) or (value == 0 and not zero):
        name, lowest = name.title(), "from 0" if zero else "above 0"
        raise invalid_parameter(
            f"{name} must be a number of seconds {lowest} to {_MAX_SECS:,.0f}, not {text!r:.{_SHOWN_CHARACTERS}}", name
        )
    return value


def _number(text: str) -> float:
    """Return a decimal number; NaN for any other text, also for what only Python reads as one, such as `1_000`."""
    return float(text) if _NUMBER.fullmatch(text) else math.nan
