"""Measure events: what they take on the wire and in Redis, and what they take in memory."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import Any

from lifecycle.encoding import encode_json
from lifecycle.tokens.encoded_events import EncodedEvents
from lifecycle.types import Event

_POINTER_BYTES = 8
_TEXT_BYTES = getsizeof("")
_DECODED = 10  # times the bytes in JSON that small objects take


def text_bytes(text: str) -> int:
    """Return the bytes of a text in UTF-8, between quotes."""
    return 2 + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))


def event_bytes(event: Event) -> int:
    """Return the bytes of an event in JSON; for a text, without the backslashes of what JSON escapes."""
    if isinstance(event, str):
        return text_bytes(event)
    return len(encode_json(event))


def memory_bytes(events: Sequence[Event]) -> int:
    """Return the memory that events take: decoded, several times the bytes of their JSON if they are small objects.

    Nothing is encoded or decoded for it. Names of fields are not counted, because the decoder shares them. Texts are
    measured together, which is faster. Of those that are encoded still, one object counts as it is, since it may only
    be passed on, and several events count as much as small objects would take decoded.
    """
    if isinstance(events, EncodedEvents):
        return len(events.json) * (1 if events.only_object else _DECODED)
    total = _POINTER_BYTES * len(events)
    try:
        return total + _TEXT_BYTES * len(events) + getsizeof("".join(events))  # type: ignore[arg-type]
    except TypeError:
        pass  # one of them is no text
    rest: list[Any] = list(events)
    while rest:
        value = rest.pop()
        total += getsizeof(value)
        if type(value) is dict:
            rest += value.values()
        elif type(value) is list:
            rest += value
    return total
