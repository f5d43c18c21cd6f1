"""Calls that a tiny random model answers in a way that clients can use."""

from __future__ import annotations

from typing import Any

from tests.llama_cpp.vocabulary import CALLS_ONE_TOOL, CALLS_TOOLS

MODEL = "tiny"
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CLOCK: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"enum": ["UTC", "CET"]}},
    "required": ["zone"],
    "additionalProperties": False,
}
REPEATABLE: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Say something."}],
    "temperature": 0,
    "seed": 7,
    "max_tokens": 60,
    "cache_prompt": False,  # a field of llama.cpp's own: a cached prompt changes the last digits of log probabilities
}
_TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "clock", "parameters": CLOCK}},
]
ONE_TOOL: dict[str, Any] = {
    "tools": _TOOLS,
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "logit_bias": CALLS_ONE_TOOL,
    "max_tokens": 400,
}
SEVERAL_TOOLS: dict[str, Any] = {**ONE_TOOL, "parallel_tool_calls": True, "logit_bias": CALLS_TOOLS}
STRUCTURED: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": WEATHER}}
}
_OWN: dict[str, Any] = {"seed": 7, "cache_prompt": False}
RESPONSE: dict[str, Any] = {
    "model": MODEL,
    "input": "Say something.",
    "temperature": 0,
    "max_output_tokens": 60,
    "extra_body": _OWN,
}
"""The fields of a call of the Responses API, as OpenAI's client library takes them."""

RESPONSE_TOOLS: dict[str, Any] = {
    **RESPONSE,
    "tools": [{"type": "function", **tool["function"]} for tool in _TOOLS],
    "tool_choice": "required",
    "parallel_tool_calls": True,
    "max_output_tokens": 400,
    "extra_body": {**_OWN, "logit_bias": CALLS_TOOLS},
}
