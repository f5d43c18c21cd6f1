"""Answers of an engine in a form in which two of them can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_OF_EACH_CALL = ("id", "created", "timings")  # `timings` is llama.cpp's


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a unary answer without nulls, ids and times.

    An empty content beside tool calls is left out, too: engines send it or not.
    """
    kept = {name: _without_nulls(value) for name, value in answer.items() if name not in _OF_EACH_CALL}
    for choice in kept.get("choices", []):
        message = choice.get("message", {})
        for call in message.get("tool_calls", []):
            call.pop("id", None)
        if message.get("tool_calls") and not message.get("content"):
            message.pop("content", None)
    return {name: value for name, value in kept.items() if value is not None}


def joined(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the unary answer that the chunks of a chat stream add up to, comparable with `comparable`."""
    whole: dict[str, Any] = {"object": "chat.completion"}
    messages: dict[int, dict[str, Any]] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        whole |= {name: value for name, value in chunk.items() if name not in ("object", "choices")}
        for choice in chunk["choices"]:
            found = choices.setdefault(choice["index"], {"index": choice["index"], "message": {}})
            _add_delta(messages.setdefault(choice["index"], {}), choice["delta"])
            for name, values in (choice.get("logprobs") or {}).items():
                if values is not None:
                    found.setdefault("logprobs", {}).setdefault(name, []).extend(values)
            for name in choice.keys() - {"index", "delta", "logprobs"}:
                value, before = choice[name], found.get(name)
                found[name] = before + value if isinstance(before, list) and value else value or before
    for index, message in messages.items():
        calls = message.get("tool_calls", {})
        choices[index]["message"] = message | ({"tool_calls": list(calls.values())} if calls else {})
    whole["choices"] = [choice for _, choice in sorted(choices.items())]
    return comparable(whole)


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for call in value or []:
                found = message.setdefault("tool_calls", {}).setdefault(call["index"], {"function": {"arguments": ""}})
                function = call.get("function", {})
                found |= {key: text for key, text in call.items() if key not in ("index", "function")}
                found["function"] |= {key: text for key, text in function.items() if key != "arguments"}
                found["function"]["arguments"] += function.get("arguments") or ""
        elif name == "role":
            message["role"] = message.get("role") or value
        elif value is not None:
            message[name] = message.get(name, "") + value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
