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
_TOOLS = [
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
