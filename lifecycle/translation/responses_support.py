"""Find what a call of the Responses API asks for that chat completions have no form for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NATIVE_FIELDS = ("context_management", "conversation", "prompt")
_ITEMS = frozenset({"function_call", "function_call_output", "message", "reasoning"})
_PARTS = frozenset({"input_audio", "input_file", "input_image", "input_text", "output_text", "refusal", "text"})
_CHOICES = frozenset({"allowed_tools", "function"})
_FORMATS = frozenset({"json_object", "json_schema", "text"})


def untranslatable(body: Mapping[str, Any]) -> list[str]:
    """Return the parameters of a call that no translation into chat completions can express, in their order.

    Of each top-level parameter only the first such place is named, as a path: `tools[1].type` for a built-in tool,
    `input[0].type` for an item reference. What is malformed is named too.
    """
    found = [name for name in _NATIVE_FIELDS if body.get(name)]
    for paths in (_in_input(body.get("input")), _in_tools(body.get("tools")), _in_choice(body.get("tool_choice"))):
        found += [path for path, _ in zip(paths, range(1), strict=False)]
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if isinstance(wanted, dict) and type_of(wanted) not in _FORMATS:
        found.append("text.format.type")
    return found


def type_of(value: object) -> str | None:
    """Return the type of an item, a part, a tool or a format; None for what has none."""
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


def item_type(item: Mapping[str, Any]) -> str | None:
    """Return the type of an input item. A message and a reference to an item may lack it."""
    if item.get("type") is None:
        return "message" if "role" in item else "item_reference"
    return type_of(item)


def _in_input(items: object) -> Iterator[str]:
    for index, item in enumerate(items if isinstance(items, list) else []):
        path = f"input[{index}]"
        kind = item_type(item) if isinstance(item, dict) else None
        if kind not in _ITEMS:
            yield f"{path}.type"
        elif kind == "message":
            yield from _in_parts(f"{path}.content", item.get("content"))
        elif kind == "function_call_output":
            yield from _in_parts(f"{path}.output", item.get("output"))


def _in_parts(path: str, parts: object) -> Iterator[str]:
    for index, part in enumerate(parts if isinstance(parts, list) else []):
        kind = type_of(part)
        if kind not in _PARTS:
            yield f"{path}[{index}].type"
        elif kind == "input_image" and not part.get("image_url"):
            yield f"{path}[{index}].file_id"
        elif kind == "input_file" and not part.get("file_data") and not part.get("file_id"):
            yield f"{path}[{index}].file_url"


def _in_tools(tools: object) -> Iterator[str]:
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        if type_of(tool) != "function":
            yield f"tools[{index}].type"


def _in_choice(choice: object) -> Iterator[str]:
    if not isinstance(choice, dict):
        return
    if type_of(choice) not in _CHOICES:
        yield "tool_choice.type"
    tools = choice.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        if type_of(tool) != "function":
            yield f"tool_choice.tools[{index}].type"
