"""Validate the body of an OpenAI completion call.

Only what no engine could serve is refused here. The range of a number, for example, is the engine's to judge, and so
are parameters that are not listed here. What not every engine can do is in `lifecycle/tracking/call_needs.py`.
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
    all_are,
    invalid,
    load_object,
)
from frontend.endpoints.endpoint import Call
from lifecycle.tracking.call_needs import needs_of
from lifecycle.types import Endpoint, RequestType

# Global names: looking a member up in its enum is slow.
_CHAT_COMPLETIONS = Endpoint.CHAT_COMPLETIONS
_STREAM, _UNARY = RequestType.STREAM, RequestType.UNARY
_CONTENT_REQUIRED = ("system", "developer", "user", "tool")  # roles; an assistant's message may have only tool calls


def parse(endpoint: Endpoint, raw: bytes) -> Call:
    """Parse and check a body. Raises ApiError, 400, that names the invalid field in `param`."""
    body = load_object(raw)
    rules = RULES[endpoint]
    for name in REQUIRED[endpoint]:
        if body.get(name) is None:
            raise invalid(name, f"'{name}' is required and missing")
    for name, value in body.items():
        if value is not None and name in rules:
            rules[name].check(name, value)
    if endpoint is _CHAT_COMPLETIONS:
        for index, message in enumerate(body["messages"]):
            if not _is_plain(message):
                _check_message(f"messages[{index}]", message)
    include_usage = _include_usage(body)
    gated = needs_of(endpoint, body)
    request_type = _STREAM if body.get("stream") else _UNARY
    return Call(endpoint, body["model"], request_type, body, include_usage, gated)


def _is_plain(message: Any) -> bool:
    """Return whether the message is valid in the most common form, so that it needs no further checks."""
    return (
        type(message) is dict
        and bool(message.get("role"))
        and type(message["role"]) is type(message.get("content")) is str
    )


def _check_message(path: str, message: Any) -> None:
    OBJECT.check(path, message)
    role, content = message.get("role"), message.get("content")
    _ROLE.check(f"{path}.role", role)
    if content is None and role not in _CONTENT_REQUIRED:
        return
    _CONTENT.check(f"{path}.content", content)
    if type(content) is list:
        for index, part in enumerate(content):
            _check_part(f"{path}.content[{index}]", part)


def _check_part(path: str, part: Any) -> None:
    OBJECT.check(path, part)
    STRING.check(f"{path}.type", part.get("type"))
    if part["type"] == "text":
        STRING.check(f"{path}.text", part.get("text"))


def _include_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not body.get("stream"):
        raise invalid("stream_options", "'stream_options' is only allowed when 'stream' is true")
    for name in ("include_usage", "include_obfuscation"):
        if options.get(name) is not None:
            BOOLEAN.check(f"stream_options.{name}", options[name])
    return bool(options.get("include_usage"))


_ROLE = Rule("a non-empty string", lambda v: type(v) is str and bool(v))
_CONTENT = Rule("a string or a non-empty array of parts", lambda v: type(v) is str or (type(v) is list and bool(v)))
_CHOICE = Rule("a string or an object", lambda v: type(v) in (str, dict))


def _is_prompt(value: Any) -> bool:
    """Return whether this is one of OpenAI's forms: a text, several texts, token ids, or several lists of token ids."""
    if type(value) is str:
        return True
    if type(value) is not list or not value:
        return False
    return all_are(str, value) or all_are(int, value) or all(prompt and all_are(int, prompt) for prompt in value)


_COMMON = {
    "model": MODEL,
    "stream": BOOLEAN,
    "stream_options": OBJECT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "max_tokens": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "seed": NUMBER,
    "stop": Rule("a string or an array", lambda v: type(v) in (str, list)),
    "n": NUMBER,
    "logit_bias": Rule("an object or an array", lambda v: type(v) in (dict, list)),
    "user": STRING,
}
_CHAT = {
    "messages": Rule("a non-empty array", lambda v: type(v) is list and bool(v)),
    "max_completion_tokens": NUMBER,
    "logprobs": BOOLEAN,
    "top_logprobs": NUMBER,
    "tools": ARRAY,
    "functions": ARRAY,
    "tool_choice": _CHOICE,
    "function_call": _CHOICE,
    "parallel_tool_calls": BOOLEAN,
    "modalities": STRINGS,
    "audio": OBJECT,
    "prediction": OBJECT,
    "web_search_options": OBJECT,
    "response_format": OBJECT,
    "reasoning_effort": STRING,
    "service_tier": STRING,
    "metadata": OBJECT,
    "store": BOOLEAN,
}
_TEXT = {
    "prompt": Rule("a string, an array of strings, or token ids", _is_prompt),
    # OpenAI does not define `false` here, but clients send it for "no logprobs".
    "logprobs": Rule("a number or a boolean", lambda v: type(v) in (int, float, bool)),
    "best_of": NUMBER,
    "echo": BOOLEAN,
    "suffix": STRING,
}
RULES = {Endpoint.CHAT_COMPLETIONS: _COMMON | _CHAT, Endpoint.COMPLETIONS: _COMMON | _TEXT}
REQUIRED = {Endpoint.CHAT_COMPLETIONS: ("model", "messages"), Endpoint.COMPLETIONS: ("model", "prompt")}
