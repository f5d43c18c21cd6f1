"""Validate the body of a Messages call.

Only what no engine could serve is refused here, and what an engine could not read. The range of a number is the
engine's to judge, and so are parameters that are not listed here.
"""

from __future__ import annotations

from typing import Any

from frontend.endpoints.body_rules import ARRAY, BOOLEAN, MODEL, NUMBER, OBJECT, STRING, STRINGS, Rule, invalid
from lifecycle.translation.messages_support import is_own_tool

_NAME = Rule("a non-empty string", lambda v: type(v) is str and bool(v))
_TEXT_OR_BLOCKS = Rule("a string or an array of content blocks", lambda v: type(v) in (str, list))
COUNT_RULES = {
    "model": MODEL,
    "messages": Rule("a non-empty array", lambda v: type(v) is list and bool(v)),
    "system": _TEXT_OR_BLOCKS,
    "tools": ARRAY,
    "tool_choice": OBJECT,
    "thinking": OBJECT,
    "output_config": OBJECT,
    "output_format": OBJECT,
}
RULES = COUNT_RULES | {
    "max_tokens": NUMBER,
    "stop_sequences": STRINGS,
    "stream": BOOLEAN,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": NUMBER,
    "metadata": OBJECT,
    "service_tier": STRING,
}
COUNT_REQUIRED = ("model", "messages")
REQUIRED = ("model", "max_tokens", "messages")

# By the type of a content block: the fields that it must have.
_FIELDS = {
    "text": {"text": STRING},
    "image": {"source": OBJECT},
    "document": {"source": OBJECT},
    "thinking": {"thinking": STRING},
    "tool_use": {"id": _NAME, "name": _NAME, "input": OBJECT},
    "tool_result": {"tool_use_id": _NAME},
}


def check(body: dict[str, Any], rules: dict[str, Rule], required: tuple[str, ...]) -> None:
    """Check a body. Raises ApiError, 400, that names the invalid field in `param`."""
    for name in required:
        if body.get(name) is None:
            raise invalid(name, f"'{name}' is required and missing")
    for name, rule in rules.items():
        if body.get(name) is not None:
            rule.check(name, body[name])
    for index, message in enumerate(body["messages"]):
        path = f"messages[{index}]"
        OBJECT.check(path, message)
        _NAME.check(f"{path}.role", message.get("role"))
        _TEXT_OR_BLOCKS.check(f"{path}.content", message.get("content"))
        _check_blocks(f"{path}.content", message["content"])
    _check_system(body.get("system"))
    for index, tool in enumerate(body.get("tools") or ()):
        OBJECT.check(f"tools[{index}]", tool)
        if is_own_tool(tool):
            _NAME.check(f"tools[{index}].name", tool.get("name"))
    if (body.get("output_config") or {}).get("format") is not None:
        OBJECT.check("output_config.format", body["output_config"]["format"])
    if body.get("tool_choice") is not None:
        _NAME.check("tool_choice.type", body["tool_choice"].get("type"))


def _check_blocks(path: str, blocks: Any) -> None:
    for index, block in enumerate(blocks if type(blocks) is list else ()):
        place = f"{path}[{index}]"
        OBJECT.check(place, block)
        _NAME.check(f"{place}.type", block.get("type"))
        for name, rule in _FIELDS.get(block["type"], {}).items():
            rule.check(f"{place}.{name}", block.get(name))
        if block["type"] == "tool_result" and block.get("content") is not None:
            _TEXT_OR_BLOCKS.check(f"{place}.content", block["content"])
            _check_blocks(f"{place}.content", block["content"])
        elif block["type"] == "document" and block["source"].get("type") == "content":
            _check_blocks(f"{place}.source.content", block["source"].get("content"))


def _check_system(system: Any) -> None:
    for index, block in enumerate(system if type(system) is list else ()):
        OBJECT.check(f"system[{index}]", block)
        STRING.check(f"system[{index}].text", block.get("text"))
