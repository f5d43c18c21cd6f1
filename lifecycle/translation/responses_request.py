"""Translate the body of a Responses call into that of a chat completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lifecycle.translation.responses_messages import to_messages
from lifecycle.translation.responses_support import type_of

_LOGPROBS = "message.output_text.logprobs"

# The fields that have another form in chat, that the tracker serves itself, or that need an engine of their own. Every
# other field, a vendor's too, keeps its name and value.
_NOT_CHAT = frozenset(
    {
        "access_programs",
        "background",
        "background_options",
        "context_management",
        "conversation",
        "image",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "reasoning",
        "store",
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
    }
)


def to_chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the chat completion for a call. It asks for a stream that ends with the usage.

    What `untranslatable` names, and what is malformed, is left out. The limit of tokens becomes `max_tokens`, because
    not every server knows its newer name.
    """
    chat = {name: value for name, value in body.items() if name not in _NOT_CHAT and value is not None}
    chat["messages"] = to_messages(body.get("instructions"), body.get("input"))
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    chat |= _text(_object(body.get("text"))) | _logprobs(body) | _tools(body)
    effort = _object(body.get("reasoning")).get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    return chat | {"stream": True, "stream_options": {"include_usage": True}}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields for the format and the verbosity of the text."""
    fields: dict[str, Any] = {}
    wanted = _object(text.get("format"))
    if wanted.get("type") == "json_schema":
        schema = {name: value for name, value in wanted.items() if name != "type" and value is not None}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted.get("type") == "json_object":
        fields["response_format"] = {"type": "json_object"}
    if text.get("verbosity") is not None:
        fields["verbosity"] = text["verbosity"]
    return fields


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields for log probabilities, which are asked for by name or by their number."""
    include, number = body.get("include"), body.get("top_logprobs")
    if number:
        return {"logprobs": True, "top_logprobs": number}
    return {"logprobs": True} if isinstance(include, list) and _LOGPROBS in include else {}


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields for functions. Where there are none, servers take no choice among them either."""
    tools = [_tool(tool) for tool in _functions(body.get("tools"))]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":  # which hardly a server knows: the others are not shown to it
            allowed = [tool.get("name") for tool in _functions(choice.get("tools"))]
            tools = [tool for tool in tools if tool["function"].get("name") in allowed]
            choice = choice.get("mode") or "auto"
        else:
            is_function = type_of(choice) == "function"
            choice = {"type": "function", "function": {"name": choice.get("name")}} if is_function else None
    fields: dict[str, Any] = {"tools": tools} if tools else {}
    if choice is not None and (tools or choice not in ("none", "auto")):
        fields["tool_choice"] = choice
    if tools and body.get("parallel_tool_calls") is not None:
        fields["parallel_tool_calls"] = body["parallel_tool_calls"]
    return fields


def _functions(tools: object) -> list[dict[str, Any]]:
    return [tool for tool in tools if type_of(tool) == "function"] if isinstance(tools, list) else []


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}
