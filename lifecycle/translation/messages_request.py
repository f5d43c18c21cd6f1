"""Translate the body of a Messages call into that of a chat completion.

What is sent on without a counterpart in chat, such as `top_k`, keeps its name. Left out is what only gives advice to
Anthropic's own servers: where to cache, how long to think, which text to cite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from lifecycle.translation.messages_support import is_own_tool

_TRANSLATED = frozenset(
    {"messages", "system", "stop_sequences", "tools", "tool_choice", "metadata", "output_config", "output_format"}
)
_LEFT_OUT = frozenset(
    {
        "betas",
        "cache_control",
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "mcp_servers",
        "service_tier",
        "speed",
        "thinking",
    }
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_PARAGRAPH = "\n\n"


def chat_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the chat completion for a valid Messages call that has nothing untranslatable."""
    chat = {name: value for name, value in body.items() if name not in _TRANSLATED and name not in _LEFT_OUT}
    chat["messages"] = [*_system(body.get("system")), *_messages(body["messages"])]
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    tools = [_tool(tool) for tool in body.get("tools") or () if is_own_tool(tool)]
    if tools:
        chat["tools"] = tools
    chat |= _tool_choice(body.get("tool_choice"), bool(tools))
    user = (body.get("metadata") or {}).get("user_id")
    if user is not None:
        chat["user"] = user
    return chat | _output(body)


def _system(system: Any) -> list[dict[str, Any]]:
    text = system if isinstance(system, str) else _PARAGRAPH.join(block["text"] for block in system or ())
    return [{"role": "system", "content": text}] if text else []


def _messages(messages: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for message in messages:
        role, content = message["role"], message["content"]
        if isinstance(content, str):
            yield {"role": role, "content": content}
        elif role == "assistant":
            yield _assistant(content)
        else:
            yield from _user(role, content)


def _user(role: str, blocks: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Yield the results of tools as messages of their own, which have to come first, then the rest as one message."""
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] == "tool_result":
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": _result(block.get("content"))}
        else:
            parts += _parts(block)
    if parts:
        yield {"role": role, "content": _plain(parts)}


def _result(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    return _plain([part for block in content for part in _parts(block)])


def _plain(parts: list[dict[str, Any]]) -> Any:
    """Return the text of parts that are one text, which every server takes, otherwise the parts."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _parts(block: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a chat message for a block of a user's message. A document becomes its text."""
    kind, source = block["type"], block.get("source") or {}
    if kind == "text":
        return [{"type": "text", "text": block["text"]}]
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _image_url(source)}}]
    if kind != "document":
        return []
    if source.get("type") == "text":
        return [{"type": "text", "text": _titled(block, source.get("data"))}]
    content = source.get("content") or ""
    if isinstance(content, str):
        return [{"type": "text", "text": _titled(block, content)}]
    return [part for inner in content for part in _parts(inner)]  # a list: the call has been checked


def _titled(document: Mapping[str, Any], text: Any) -> str:
    return _PARAGRAPH.join(str(part) for part in (document.get("title"), document.get("context"), text) if part)


def _image_url(source: Mapping[str, Any]) -> str:
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    return str(source.get("url"))


def _assistant(blocks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an earlier answer. Reasoning has the field that chat templates read; redacted reasoning is left out."""
    texts, thoughts, calls = [], [], []
    for block in blocks:
        if block["type"] == "text":
            texts.append(block["text"])
        elif block["type"] == "thinking":
            thoughts.append(block.get("thinking") or "")
        elif block["type"] == "tool_use":
            calls.append(_call(block))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if any(thoughts):
        message["reasoning_content"] = _PARAGRAPH.join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool.get("input_schema") or {"type": "object", "properties": {}}}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: Mapping[str, Any] | None, has_tools: bool) -> dict[str, Any]:
    """Return the fields for a `tool_choice`; chat does not allow them without tools."""
    if not choice or not has_tools:
        return {}
    kind = choice.get("type")
    named = {"type": "function", "function": {"name": choice.get("name")}}
    found: dict[str, Any] = {"tool_choice": named if kind == "tool" else _CHOICES.get(str(kind), "auto")}
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _output(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields for the form of the answer, and for the effort that it is worth."""
    config = body.get("output_config") or {}
    found: dict[str, Any] = {}
    if config.get("effort"):
        found["reasoning_effort"] = config["effort"]
    wanted = config.get("format") or body.get("output_format")
    if wanted:
        found["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": wanted.get("schema"), "strict": True},
        }
    return found
