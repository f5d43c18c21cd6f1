"""Find what a call of the Messages API asks for that chat completions have no form for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lifecycle.translation.responses_support import type_of

_NATIVE_FIELDS = ("container", "mcp_servers")
_BLOCKS = frozenset({"document", "image", "redacted_thinking", "text", "thinking", "tool_result", "tool_use"})
_RESULT_BLOCKS = frozenset({"document", "image", "text"})
_SOURCES = {"image": ("base64", "url"), "document": ("content", "text")}  # a PDF has none of these


def untranslatable(body: Mapping[str, Any]) -> list[str]:
    """Return the parameters of a call that no translation into chat completions can express.

    Of each top-level parameter only the first such place is named, as a path: `tools[1].type` for a tool that the
    server runs, `messages[0].content[2].source.type` for a PDF.
    """
    found = [name for name in _NATIVE_FIELDS if body.get(name)]
    for paths in (_in_messages(body.get("messages")), _in_tools(body.get("tools"))):
        found += [path for path, _ in zip(paths, range(1), strict=False)]
    return found


def is_own_tool(tool: object) -> bool:
    """Return whether a tool is described by the call itself, and run by the client."""
    return isinstance(tool, dict) and tool.get("type", "custom") in ("custom", None)


def _in_messages(messages: object) -> Iterator[str]:
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        if isinstance(message, dict):
            yield from _in_blocks(f"messages[{index}].content", message.get("content"), _BLOCKS)


def _in_blocks(path: str, blocks: object, known: frozenset[str]) -> Iterator[str]:
    for index, block in enumerate(blocks if isinstance(blocks, list) else []):
        kind, place = type_of(block), f"{path}[{index}]"
        if kind not in known:
            yield f"{place}.type"
        elif kind in _SOURCES and _source_type(block) not in _SOURCES[kind]:
            yield f"{place}.source.type"
        elif kind == "tool_result":
            yield from _in_blocks(f"{place}.content", block.get("content"), _RESULT_BLOCKS)


def _source_type(block: Mapping[str, Any]) -> object:
    source = block.get("source")
    return source.get("type") if isinstance(source, dict) else None


def _in_tools(tools: object) -> Iterator[str]:
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        if not is_own_tool(tool):
            yield f"tools[{index}].type"
