"""Examine the events that engines yield: their form, their content, and the usage that they carry."""

from __future__ import annotations

import json
from typing import Any

import orjson

from lifecycle.encoding import encodable

_NO_CONTENT = frozenset({"index", "finish_reason", "stop_reason", "native_finish_reason"})
_DELTAS = ("delta", "message")


def snapshot(event: object) -> tuple[dict[str, Any], int]:
    """Return a copy of a dict that an engine has yielded, as its readers are going to see it, and its bytes in JSON.

    Raise TypeError, with a message that names what to yield, for any other value and for a dict that is not JSON.
    The copy protects what waits to be written from an engine that changes and yields the same dict again.
    """
    if not isinstance(event, dict):
        shown = "None" if event is None else f"a value of type {type(event).__name__}"
        raise TypeError(
            f"the engine yielded {shown}; yield the text of a token as str, or a chunk of the endpoint's format as dict"
        )
    try:
        encoded = _encoded(event)
        copied: dict[str, Any] = orjson.loads(encoded)
    except (TypeError, ValueError, RecursionError) as failure:
        raise TypeError(
            f"the engine yielded a dict that cannot be written as JSON ({failure}); yield str, numbers, lists and dicts"
        ) from None
    return copied, len(encoded)


def _encoded(event: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(event)
    except TypeError:
        # Keys that are no strings, integers beyond 64 bits, and lone surrogates, which have no UTF-8 form.
        return encodable(json.dumps(event, ensure_ascii=False)).encode()


def has_content(event: dict[str, Any]) -> bool:
    """Return whether an event carries a part of the answer, and not only a role, a finish reason or a usage.

    An event without `choices` is in another endpoint's format and counts when it is not empty.
    """
    choices = event.get("choices")
    if not isinstance(choices, list):
        return bool(event)
    return any(_choice_has_content(choice) for choice in choices if isinstance(choice, dict))


def _choice_has_content(choice: dict[str, Any]) -> bool:
    for name, value in choice.items():
        if name in _DELTAS and isinstance(value, dict):
            if any(part for field, part in value.items() if field != "role"):
                return True
        elif value and name not in _NO_CONTENT:
            return True
    return False


def first_finish_reason(event: dict[str, Any]) -> str | None:
    """Return the finish reason that an event gives for choice 0, or None."""
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            reason = choice.get("finish_reason")
            return reason if isinstance(reason, str) and reason else None
    return None


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
