"""Parse JSON that may be cut off, as the input of a tool is when an answer reaches its limit of tokens."""

from __future__ import annotations

import re
from typing import Any

import orjson

_TOKEN = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"|(?P<mark>[{}\[\]:,])|[^\s{}\[\]:,"]+)', re.DOTALL)
_MAX_DEPTH = 100
_CLOSING = {"{": "}", "[": "]"}


def parse_partial(text: str) -> Any:
    """Return the value of a JSON text. Of one that is cut off, all members and items that are complete.

    Return an empty object when there is nothing of this kind.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    for end, closing in reversed(_stops(text)):
        try:
            return orjson.loads(text[:end] + closing)
        except orjson.JSONDecodeError:
            continue
    return {}


def _stops(text: str) -> list[tuple[int, str]]:
    """Return where the text may be cut off, and what has to follow there: the last places only, since they suffice."""
    found: list[tuple[int, str]] = []
    closing: list[str] = []
    position = 0
    while match := _TOKEN.match(text, position):
        mark = match["mark"]
        if mark in ("}", "]"):
            if not closing or closing.pop() != mark:
                break
        elif mark in _CLOSING:
            closing.append(_CLOSING[mark])
            if len(closing) > _MAX_DEPTH:
                break
        position = match.end()
        if mark not in (":", ","):
            found = [*found[-3:], (position, "".join(reversed(closing)))]
    return found
