"""Check what callers of the library pass. Each function raises InvalidValue or InvalidSetting, with the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from lifecycle.errors import InvalidSetting, InvalidValue
from lifecycle.ids import REQUEST_ID_CHARS, START, TokenId, is_endpoint, is_request_id
from lifecycle.settings import Settings, load
from lifecycle.types import CancelMode, OnDisconnect

FILTER = ("status", "model", "endpoint", "frontend", "worker", "owner")
"""The fields by which requests are listed."""

PAGE = 1000  # records that are read at a time

_STATUSES = ("inflight", "queued", "running", "completed", "failed", "cancelled")
_LABELS, _LABEL_CHARS = 16, 64


def load_settings(given: Mapping[str, Any]) -> Settings:
    """Return the settings of `LIFECYCLE_*` and of keyword arguments, which take precedence; None is not given."""
    for name in given:
        if name not in Settings.model_fields:
            raise InvalidSetting(f"{name!r} is no setting; docs/reference/settings.md lists them, in lower case here")
    return load(given)


def request_id(value: str) -> str:
    """Return a request id."""
    if not isinstance(value, str) or not is_request_id(value):
        raise InvalidValue(
            f"the request id {value!r:.200} is malformed; use 1 to {REQUEST_ID_CHARS} characters of A-Z a-z 0-9 . _ -"
        )
    return value


def position(value: str | None) -> TokenId:
    """Return the position to resume at, of the form `<attempt>-<number>`; None is the start."""
    if value is None:
        return START
    found = TokenId.parse(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidValue(f"the position {value!r:.200} is malformed; write <attempt>-<number>, such as 1-7")
    return found


def cancel_mode(value: str) -> CancelMode:
    """Return a mode of cancelling."""
    return CancelMode(_one_of("mode", value, tuple(CancelMode)))


def on_disconnect(value: str) -> OnDisconnect:
    """Return the effect of a disconnect."""
    return OnDisconnect(_one_of("on_disconnect", value, tuple(OnDisconnect)))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InvalidValue(f"{name} is {value!r:.200}; it must be one of {', '.join(allowed)}")
    return value


def endpoint(value: str) -> str:
    """Return the name of an endpoint."""
    if not isinstance(value, str) or not is_endpoint(value):
        raise InvalidValue(f"the endpoint {value!r:.200} is malformed; use 1 to 64 characters of a-z 0-9 _")
    return value


def model(value: object) -> str:
    """Return the name of a model."""
    if not isinstance(value, str) or not 1 <= len(value) <= 256 or not value.isprintable() or " " in value:
        raise InvalidValue(f"the model {value!r:.200} is malformed; use 1 to 256 printable characters without spaces")
    return value


def seconds(name: str, value: float | None) -> float:
    """Return a time limit in seconds; None is 0, which stands for no limit."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 30 * 86_400:
        raise InvalidValue(f"{name} is {value!r:.200}; it must be a number of seconds above 0, of 30 days at most")
    return float(value)


def own_labels(labels: Mapping[str, str] | None) -> bytes:
    """Return an application's own labels as JSON; empty for none."""
    if not labels:
        return b""
    texts = [text for pair in labels.items() for text in pair]
    if len(labels) > _LABELS or any(not isinstance(text, str) or len(text) > _LABEL_CHARS for text in texts):
        raise InvalidValue(
            f"the labels {labels!r:.200} are too many or too long; "
            f"use at most {_LABELS} strings of at most {_LABEL_CHARS} characters each"
        )
    return orjson.dumps(dict(labels))


def filter_of(status: str, model: str, endpoint: str, frontend: str, worker: str, owner: str) -> dict[str, str]:
    """Return the filter of a listing. Raises InvalidValue when the status is none."""
    if status and status not in _STATUSES:
        raise InvalidValue(f"status is {status!r:.200}; it must be one of {', '.join(_STATUSES)}")
    return dict(zip(FILTER, (status, model, endpoint, frontend, worker, owner), strict=True))


def selector_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return the selector of many requests. Raises InvalidValue: everything must be asked for by a status."""
    chosen = {name: value for name, value in given.items() if value is not None}
    unknown = [name for name in chosen if name not in (*FILTER, "older_than_secs")]
    if unknown:
        raise InvalidValue(f"{', '.join(unknown)}: unknown; a selector has {', '.join(FILTER)} and older_than_secs")
    if not chosen or any(value == "" for value in chosen.values()):
        raise InvalidValue("the selector is empty; give at least one field (status='inflight' selects all requests)")
    return chosen
