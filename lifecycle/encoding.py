"""Encode values as JSON, whatever an engine has put into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from lifecycle.types import Event

_DEPTH_LIMIT = 100  # of an event that cannot be encoded as it is


Encodable = Event | orjson.Fragment
"""An event, or one that is JSON already."""


def encode_events(events: Sequence[Encodable]) -> bytes:
    """Return a JSON list. What JSON or UTF-8 cannot carry is replaced, see `encodable_value`; it never raises."""
    try:
        return orjson.dumps(events)
    except TypeError:
        return orjson.dumps(
            [event if isinstance(event, orjson.Fragment) else encodable_value(event) for event in events]
        )


def encode_json(value: Any) -> bytes:
    """Return JSON. What JSON or UTF-8 cannot carry is replaced, see `encodable_value`; it never raises."""
    try:
        return orjson.dumps(value)
    except TypeError:  # such as for a lone surrogate: too rare to check for in advance
        return orjson.dumps(encodable_value(value))


def encodable(text: str) -> str:
    """Replace every lone surrogate, so that the text can be encoded as UTF-8 and as JSON.

    Texts of engines and exceptions may contain some. Two that form a pair become the character they stand for.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def encodable_value(value: Any, depth: int = 0) -> Any:
    """Return the value as JSON can carry it.

    Texts are as from `encodable`. An integer of more than 64 bits becomes a float, any value that JSON does not know
    becomes its `str()`, and what is nested deeper than 100 levels becomes null.
    """
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else _as_float(value)
    if depth >= _DEPTH_LIMIT:
        return None
    if isinstance(value, dict):
        return {encodable_value(str(name)): encodable_value(item, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable_value(item, depth + 1) for item in value]
    return encodable_value(str(value))


def _as_float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
