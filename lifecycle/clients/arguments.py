"""Check what callers of the library pass. Each function raises InvalidValue or InvalidSetting, with the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from lifecycle.errors import InvalidSetting, InvalidValue
from lifecycle.ids import MODEL_RULE, REQUEST_ID_CHARS, START, TokenId, is_endpoint, is_model_name, is_request_id
from lifecycle.settings import Settings, load
from lifecycle.types import MOST_PRIORITY, CancelMode, OnDisconnect

FILTER = ("status", "model", "endpoint", "frontend", "worker", "owner")
"""The fields by which requests are listed."""

PAGE = 1000  # records that are read at a time

_INFLIGHT_STATUSES = ("inflight", "queued", "running")
_STATUSES = (*_INFLIGHT_STATUSES, "completed", "failed", "cancelled")
_FIELD_CHARS, _REASON_CHARS = 512, 1024
_AGE_SECS_MAX = 10 * 365 * 86_400
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


def replica_id(value: str) -> str:
    """Return a replica id."""
    if not isinstance(value, str) or not 0 < len(value) <= REQUEST_ID_CHARS or not value.isprintable():
        raise InvalidValue(f"the replica id {value!r:.200} is malformed; use the id of a replica or of a record")
    return value


def position(value: str | None) -> TokenId:
    """Return the position to resume at, of the form `<attempt>-<number>`; None is the start."""
    if value is None:
        return START
    found = TokenId.parse(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidValue(f"the position {value!r:.200} is malformed; write <attempt>-<number>, such as 1-7")
    return found


def cancel_mode(value: object) -> CancelMode:
    """Return a mode of cancelling; None and an empty text are `kill`."""
    return CancelMode(_one_of("mode", CancelMode.KILL if value in (None, "") else str(value), tuple(CancelMode)))


def on_disconnect(value: str) -> OnDisconnect:
    """Return the effect of a disconnect."""
    return OnDisconnect(_one_of("on_disconnect", value, tuple(OnDisconnect)))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InvalidValue(f"{name} is {value!r:.200}; it must be one of {', '.join(allowed)}", param=name)
    return value


def endpoint(value: str) -> str:
    """Return the name of an endpoint."""
    if not isinstance(value, str) or not is_endpoint(value):
        raise InvalidValue(
            f"the endpoint {value!r:.200} is malformed; use 1 to 64 characters of a-z 0-9 _", param="endpoint"
        )
    return value


def body(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the body of a call."""
    if not isinstance(value, Mapping):
        raise InvalidValue(f"the body is a {type(value).__name__}; it must be a mapping, as of a JSON object")
    return value


def source(value: object) -> None:
    """Check what is to be tracked."""
    if not callable(value) and not hasattr(value, "__aiter__"):
        raise InvalidValue(
            f"the source is a {type(value).__name__}; pass an async generator, or a function of the context that "
            "returns one"
        )


def model(value: object) -> str:
    """Return the name of a model."""
    if not isinstance(value, str) or not is_model_name(value):
        raise InvalidValue(f"the model {value!r:.200} is malformed; use {MODEL_RULE}")
    return value


def seconds(name: str, value: float | None) -> float:
    """Return a time limit in seconds; None is 0, which stands for no limit."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 30 * 86_400:
        raise InvalidValue(f"{name} is {value!r:.200}; it must be a number of seconds above 0, of 30 days at most")
    return float(value)


def wait_secs(value: float) -> float:
    """Return how long to wait in seconds; 0 does not wait."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 30 * 86_400:
        message = f"wait_secs is {value!r:.200}; it must be a number of seconds from 0, of 30 days at most"
        raise InvalidValue(message, param="wait_secs")
    return float(value)


def priority(value: object) -> int:
    """Return a priority in the queue; None is 0."""
    if isinstance(value, bool) or not isinstance(value, int | None):
        raise InvalidValue(f"priority is {value!r:.200}; it must be an integer", param="priority")
    return min(max(value or 0, -MOST_PRIORITY), MOST_PRIORITY)


def include_usage(body: Mapping[str, Any]) -> bool:
    """Return whether a call asks for a usage chunk in its stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


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
    """Return the filter of a listing; an empty field is none."""
    chosen = dict(zip(FILTER, (status, model, endpoint, frontend, worker, owner), strict=True))
    _check_filter(chosen, _STATUSES)
    return chosen


def selector_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return the selector of many inflight requests. It is not empty: all must be asked for by a status."""
    chosen = {name: value for name, value in given.items() if value is not None}
    unknown = [name for name in chosen if name not in (*FILTER, "older_than_secs")]
    if unknown:
        raise InvalidValue(
            f"{', '.join(unknown)}: unknown; a selector has {', '.join(FILTER)} and older_than_secs", param=unknown[0]
        )
    if not chosen or any(value == "" for value in chosen.values()):
        raise InvalidValue("the selector is empty; give at least one field (status='inflight' selects all requests)")
    _check_filter({name: value for name, value in chosen.items() if name in FILTER}, _INFLIGHT_STATUSES)
    age_secs = chosen.get("older_than_secs", 0)
    if isinstance(age_secs, bool) or not isinstance(age_secs, int | float) or not 0 <= age_secs <= _AGE_SECS_MAX:
        raise InvalidValue(
            f"older_than_secs is {age_secs!r:.200}; it must be a number of seconds from 0 to {_AGE_SECS_MAX}",
            param="older_than_secs",
        )
    return chosen


def _check_filter(fields: Mapping[str, Any], statuses: tuple[str, ...]) -> None:
    for name, value in fields.items():
        _text(name, value, _FIELD_CHARS)
    if fields.get("status"):
        _one_of("status", fields["status"], statuses)
    if fields.get("endpoint"):
        endpoint(fields["endpoint"])


def dry_run(value: bool | None) -> bool:
    """Return whether nothing is to be cancelled; None is False."""
    if not isinstance(value, bool | None):
        raise InvalidValue(f"dry_run is {value!r:.200}; it must be true or false", param="dry_run")
    return bool(value)


def reason(value: str | None) -> str:
    """Return the reason of a cancellation; None is ''."""
    return _text("reason", "" if value is None else value, _REASON_CHARS)


def _text(name: str, value: str, limit_chars: int) -> str:
    if not isinstance(value, str) or len(value) > limit_chars:
        raise InvalidValue(
            f"{name} is {value!r:.200}; it must be a string of at most {limit_chars} characters", param=name
        )
    return value
