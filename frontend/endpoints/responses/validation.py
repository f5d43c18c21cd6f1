"""Validate the body of a call that creates a response.

Only what no engine could serve is refused here. What chat completions have no form for needs an engine that serves
responses itself; what only some engines can do is gated, by the names of chat completions, which `accepts` knows.
"""

from __future__ import annotations

from typing import Any

from frontend.endpoints.body_rules import (
    ARRAY,
    BOOLEAN,
    MODEL,
    NUMBER,
    OBJECT,
    STRING,
    STRINGS,
    Rule,
    invalid,
    load_object,
)
from frontend.endpoints.endpoint import Call
from lifecycle.tracking.call_needs import needs_of
from lifecycle.translation.responses_support import item_type
from lifecycle.types import Endpoint, RequestType, Storage

METADATA_PAIRS, METADATA_KEY_CHARS, METADATA_VALUE_CHARS = 16, 64, 512

_INSTEAD_OF_INPUT = ("previous_response_id", "prompt", "conversation")

RULES: dict[str, Rule] = {
    "model": MODEL,
    "input": Rule("a string or an array", lambda v: type(v) in (str, list)),
    "instructions": STRING,
    "stream": BOOLEAN,
    "stream_options": OBJECT,
    "background": BOOLEAN,
    "store": BOOLEAN,
    "previous_response_id": Rule("a non-empty string", lambda v: type(v) is str and bool(v)),
    "context_management": ARRAY,
    "conversation": Rule("a string or an object", lambda v: type(v) in (str, dict)),
    "prompt": OBJECT,
    "include": STRINGS,
    "metadata": OBJECT,
    "max_output_tokens": NUMBER,
    "max_tool_calls": NUMBER,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_logprobs": NUMBER,
    "reasoning": OBJECT,
    "text": OBJECT,
    "tools": ARRAY,
    "tool_choice": Rule("a string or an object", lambda v: type(v) in (str, dict)),
    "parallel_tool_calls": BOOLEAN,
    "truncation": STRING,
    "service_tier": STRING,
    "safety_identifier": STRING,
    "prompt_cache_key": STRING,
    "user": STRING,
}


def parse(raw: bytes) -> Call:
    """Parse and check a body. Raises ApiError, 400, that names the invalid field in `param`."""
    body = load_object(raw)
    given = {name: value for name, value in body.items() if value is not None and name in RULES}
    for name, value in given.items():
        RULES[name].check(name, value)
    if "input" not in given and not any(name in given for name in _INSTEAD_OF_INPUT):
        raise invalid("input", "'input' is required and missing")
    if "stream_options" in given and not given.get("stream"):
        raise invalid("stream_options", "'stream_options' is only allowed when 'stream' is true")
    _check_metadata(given.get("metadata", {}))
    _check_input(given.get("input", ""))
    _check_tools(given.get("tools", []))
    _check_format(given.get("text", {}).get("format"))
    return Call(
        Endpoint.RESPONSES,
        given.get("model", ""),
        RequestType.STREAM if given.get("stream") else RequestType.UNARY,
        body,
        gated=needs_of(Endpoint.RESPONSES, given),
        storage=_storage(given),
    )


def _storage(given: dict[str, Any]) -> Storage:
    background, store = given.get("background", False), given.get("store", True)
    if background and not store:
        message = "'background' needs the response to be stored; omit 'store', or set it to true"
        raise invalid("background", message)
    if background:
        return Storage.BACKGROUND
    return Storage.KEPT if store else Storage.TRANSIENT


def _check_metadata(metadata: dict[str, Any]) -> None:
    if len(metadata) > METADATA_PAIRS:
        raise invalid("metadata", f"'metadata' has {len(metadata)} pairs; it may have {METADATA_PAIRS} at most")
    for name, value in metadata.items():
        if len(name) > METADATA_KEY_CHARS:
            message = f"'metadata' has a key of {len(name)} characters; a key may have {METADATA_KEY_CHARS} at most"
            raise invalid("metadata", message)
        STRING.check(f"metadata.{name}", value)
        if len(value) > METADATA_VALUE_CHARS:
            message = f"'metadata.{name}' has {len(value)} characters; a value may have {METADATA_VALUE_CHARS} at most"
            raise invalid(f"metadata.{name}", message)


def _check_input(given: str | list[Any]) -> None:
    for index, item in enumerate(given if isinstance(given, list) else ()):
        path = f"input[{index}]"
        OBJECT.check(path, item)
        if item.get("type") is not None:
            STRING.check(f"{path}.type", item["type"])
        if item_type(item) == "message":
            STRING.check(f"{path}.role", item.get("role"))
            _check_content(f"{path}.content", item.get("content"))


def _check_content(path: str, content: Any) -> None:
    if type(content) is not list:
        Rule("a string or an array of parts", lambda v: type(v) is str).check(path, content)
        return
    for index, part in enumerate(content):
        OBJECT.check(f"{path}[{index}]", part)
        STRING.check(f"{path}[{index}].type", part.get("type"))


def _check_tools(tools: list[Any]) -> None:
    for index, tool in enumerate(tools):
        OBJECT.check(f"tools[{index}]", tool)
        STRING.check(f"tools[{index}].type", tool.get("type"))


def _check_format(chosen: Any) -> None:
    if chosen is not None:
        OBJECT.check("text.format", chosen)
        STRING.check("text.format.type", chosen.get("type"))
