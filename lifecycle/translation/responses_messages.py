"""Translate the input of a Responses call into the messages of a chat completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lifecycle.translation.responses_support import item_type, type_of

_ASSISTANT_ITEMS = frozenset({"function_call", "reasoning"})
_TEXT_PARTS = frozenset({"input_text", "output_text", "text"})


def to_messages(instructions: object, items: object) -> list[dict[str, Any]]:
    """Return the messages for a call's `instructions` and `input`.

    A developer's message becomes the system's, which every chat template knows. Those at the beginning become one
    message, because many templates take only one and want it first. Items of the model that follow one another become
    one message, so that the results of its calls come right behind it. What cannot be translated is left out.
    """
    messages: list[dict[str, Any]] = []
    if isinstance(instructions, str) and instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            _add(messages, item)
    for message in messages:
        if message["role"] == "assistant":
            message.setdefault("content", None)
    return messages


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    kind = item_type(item)
    if kind in _ASSISTANT_ITEMS or (kind == "message" and item.get("role") == "assistant"):
        _add_to_assistant(messages, kind, item)
    elif kind == "message":
        role = item.get("role")
        message = {"role": "system" if role == "developer" else role, "content": _content(item.get("content"))}
        if message["role"] == "system" and len(messages) == 1 and _both_text(messages[0], message):
            messages[0]["content"] += f"\n\n{message['content']}"
        else:
            messages.append(message)
    elif kind == "function_call_output":
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": _content(item.get("output"))})


def _both_text(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first["role"] == "system" and isinstance(first["content"], str) and isinstance(second["content"], str)


def _add_to_assistant(messages: list[dict[str, Any]], kind: str | None, item: Mapping[str, Any]) -> None:
    """Add an item of the model to the last message if that is the model's too, and otherwise begin another one."""
    last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    calls = last is not None and "tool_calls" in last
    if kind == "reasoning":
        text = "".join(_reasoning(item))
        if not text:
            return
        if last is None or (not calls and "content" in last):
            last = _begin(messages)
        last["reasoning_content"] = last.get("reasoning_content", "") + text
    elif kind == "function_call":
        call = {name: item.get(name) for name in ("name", "arguments")}
        last = last or _begin(messages)
        last.setdefault("tool_calls", []).append({"id": item.get("call_id"), "type": "function", "function": call})
    else:
        content = _content(item.get("content"))
        if last is None or (not calls and "content" in last):
            last = _begin(messages)
        last["content"] = [*_parts(last["content"]), *_parts(content)] if "content" in last else content


def _begin(messages: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    messages.append(message)
    return message


def _reasoning(item: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a reasoning item. Its summary and its encrypted content say nothing to another model."""
    content = item.get("content")
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def _content(content: object) -> str | list[dict[str, Any]]:
    """Return the content for a text or for parts. A single part with text becomes a text, which every engine takes."""
    if isinstance(content, str):
        return content
    given = content if isinstance(content, list) else []
    parts = [translated for part in given if isinstance(part, dict) for translated in _part(part)]
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _part(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind = type_of(part)
    if kind in _TEXT_PARTS:
        yield {"type": "text", "text": _text(part.get("text"))}
    elif kind == "refusal":
        yield {"type": "refusal", "refusal": _text(part.get("refusal"))}
    elif kind == "input_image" and part.get("image_url"):
        yield {"type": "image_url", "image_url": {"url": part["image_url"], **_given(part, "detail")}}
    elif kind == "input_file":
        yield {"type": "file", "file": _given(part, "file_data", "file_id", "filename")}
    elif kind == "input_audio":
        yield dict(part)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _given(part: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: part[name] for name in names if part.get(name) is not None}
