"""Examine the events that engines yield: their form, their content, and the usage that they carry."""

from __future__ import annotations

import json
from typing import Any

import orjson

from lifecycle.encoding import encodable

_NO_CONTENT = frozenset({"index", "stop_reason", "native_finish_reason"})
_DELTAS = ("delta", "message")
_DICT = frozenset({dict})


def encode(event: object) -> tuple[dict[str, Any], bytes]:
    """Return the fields of a dict that an engine has yielded, and its JSON, as its readers are going to see them.

    The fields may be the dict itself, which the engine may change later. Raise TypeError, with a message that names
    what to yield, for any other value and for a dict that is not JSON.
    """
    if not isinstance(event, dict):
        shown = "None" if event is None else f"a value of type {type(event).__name__}"
        raise TypeError(
            f"the engine yielded {shown}; yield the text of a token as str, or a chunk of the endpoint's format as dict"
        )
    encoded = encode_object(event)
    # Values that JSON shows as something else, such as tuples and dataclasses, are looked into as readers get them.
    return event if _is_plain(event) else orjson.loads(encoded), encoded


def encode_object(event: dict[str, Any]) -> bytes:
    """Return the JSON of a dict that an engine has yielded. Raise TypeError when it is not JSON."""
    try:
        return _encoded(event)
    except (TypeError, ValueError, RecursionError) as failure:
        raise TypeError(
            f"the engine yielded a dict that cannot be written as JSON ({failure}); yield str, numbers, lists and dicts"
        ) from None


def _is_plain(event: dict[str, Any]) -> bool:
    """Return whether the event has nothing but lists and dicts where this module looks, and no usage."""
    choices = event.get("choices")
    if type(choices) is not list or "usage" in event:
        return False
    return {type(choice.get("delta", choice)) if type(choice) is dict else None for choice in choices} <= _DICT


def _encoded(event: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(event)
    except TypeError:
        # Keys that are no strings, integers beyond 64 bits, and lone surrogates, which have no UTF-8 form.
        return encodable(json.dumps(event, ensure_ascii=False)).encode()


def examine(event: dict[str, Any]) -> tuple[bool, str | None]:
    """Return whether an event carries a part of the answer, and the finish reason that it gives for choice 0, if any.

    A role, a finish reason or a usage alone is no part of the answer. An event without `choices` is in another
    endpoint's format, and is a part of the answer when it is not empty.
    """
    choices = event.get("choices")
    if not isinstance(choices, list):
        return bool(event), None
    has_content, reason = False, None
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        for name, value in choice.items():
            if name in _DELTAS and isinstance(value, dict):
                for field, part in value.items():
                    if part and field != "role":
                        has_content = True
            elif name == "finish_reason":
                if isinstance(value, str) and value and reason is None and choice.get("index", 0) == 0:
                    reason = value
            elif value and name not in _NO_CONTENT:
                has_content = True
    return has_content, reason


def take_usage(event: dict[str, Any]) -> dict[str, Any] | None:
    """Remove the usage object from a chunk and return it; None when there is none.

    The usage belongs to the end of an answer. An event without `choices` keeps its own. Of a chunk that holds nothing
    else than fields beside the choices, null is left as its `usage`, which marks it; see `is_usage_rest`.
    """
    if "choices" not in event or "usage" not in event:
        return None
    usage = event.pop("usage")
    if event["choices"] == []:
        event["usage"] = None
    return usage if isinstance(usage, dict) else None


def is_empty(event: dict[str, Any]) -> bool:
    """Return whether nothing is left of a chunk, as of one that held only the usage."""
    return not any(event.values())
