"""List the input of a response as items with ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from lifecycle.translation.responses_support import item_type

_ID_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}
_ID_CHARS = 32


def items_of(value: Any) -> list[dict[str, Any]]:
    """Return the items of a valid `input`: a string is one message of the user, and null is no item."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    return list(value or ())


def input_items(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the items of a body's `input`, first to last, in the form in which the API lists them.

    Each has an id. One that came without gets an id that follows from its place and content, so it is the same at
    every call, and also in a response that continues this one.
    """
    return [_listed(item, index) for index, item in enumerate(items_of(body.get("input")))]


def _listed(item: dict[str, Any], index: int) -> dict[str, Any]:
    kind = item_type(item) or ""
    listed = {**item, "type": kind}
    if kind == "message":
        listed["content"] = _parts(item.get("content"), str(item.get("role")))
        listed.setdefault("status", "completed")
    if isinstance(listed.get("id"), str):
        return listed
    digest = hashlib.sha256(orjson.dumps([index, listed], option=orjson.OPT_SORT_KEYS)).hexdigest()
    return {**listed, "id": f"{_ID_PREFIXES.get(kind, 'item')}_{digest[:_ID_CHARS]}"}


def _parts(content: Any, role: str) -> Any:
    """Return a message's content as a list of parts; a string is one part."""
    if not isinstance(content, str):
        return content
    if role == "assistant":
        return [{"type": "output_text", "text": content, "annotations": []}]
    return [{"type": "input_text", "text": content}]
