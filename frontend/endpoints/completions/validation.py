"""Validate the body of an OpenAI completion call.

Only what no engine could serve is refused here. The range of a number, for example, is the engine's to judge, and so
are parameters that are not listed here. A gated parameter asks for something that not every engine can do: a call with
one is served if a worker of the model accepts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from frontend.endpoints.endpoint import Call
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import Endpoint, ErrorType, RequestType

MAX_DEPTH = 100  # far above any real body, and far below the limits of the encoders on the way to the engine
MAX_MODEL_CHARS = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTENT_REQUIRED = ("system", "developer", "user", "tool")  # roles; an assistant's message may have only tool calls


def parse(endpoint: Endpoint, raw: bytes) -> Call:
    """Parse and check a body. Raises ApiError, 400, that names the invalid field in `param`."""
    body = _load(raw)
    rules = RULES[endpoint]
    given = [(name, value, rules[name]) for name, value in body.items() if value is not None and name in rules]
    for name in REQUIRED[endpoint]:
        if body.get(name) is None:
            raise _invalid(name, f"'{name}' is required and missing")
    for name, value, rule in given:
        rule.check(name, value)
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        for index, message in enumerate(body["messages"]):
            if not _is_plain(message):
                _check_message(f"messages[{index}]", message)
    include_usage = _include_usage(body)
    gated = tuple(name for name, value, rule in given if rule.gated is not None and rule.gated(value))
    request_type = RequestType.STREAM if body.get("stream") else RequestType.UNARY
    return Call(endpoint, body["model"], request_type, body, include_usage, gated)


def _load(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _invalid(None, f"The body is not valid JSON: {error}") from None
    if type(body) is not dict:
        raise _invalid(None, f"The body must be a JSON object, not {_describe(body)}")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, body):
        raise _invalid(None, f"The body is nested more than {MAX_DEPTH} levels deep")
    return body


def _deeper_than(depth: int, value: dict[str, Any]) -> bool:
    """Return whether the value is nested deeper than this. Works by levels: recursion could exhaust the stack."""
    level: list[Any] = [value]
    for _ in range(depth):
        children = (child for node in level for child in (node.values() if type(node) is dict else node))
        level = [child for child in children if type(child) is dict or type(child) is list]
        if not level:
            return False
    return True


def _is_plain(message: Any) -> bool:
    """Return whether the message is valid in the most common form, so that it needs no further checks."""
    return (
        type(message) is dict
        and bool(message.get("role"))
        and type(message["role"]) is type(message.get("content")) is str
    )


def _check_message(path: str, message: Any) -> None:
    _OBJECT.check(path, message)
    role, content = message.get("role"), message.get("content")
    _ROLE.check(f"{path}.role", role)
    if content is None and role not in _CONTENT_REQUIRED:
        return
    _CONTENT.check(f"{path}.content", content)
    if type(content) is list:
        for index, part in enumerate(content):
            _check_part(f"{path}.content[{index}]", part)


def _check_part(path: str, part: Any) -> None:
    _OBJECT.check(path, part)
    _STRING.check(f"{path}.type", part.get("type"))
    if part["type"] == "text":
        _STRING.check(f"{path}.text", part.get("text"))


def _include_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not body.get("stream"):
        raise _invalid("stream_options", "'stream_options' is only allowed when 'stream' is true")
    for name in ("include_usage", "include_obfuscation"):
        if options.get(name) is not None:
            _BOOLEAN.check(f"stream_options.{name}", options[name])
    return bool(options.get("include_usage"))


def _invalid(param: str | None, message: str) -> ApiError:
    return ApiError(ErrorType.VALIDATION, message, param=param)


def _describe(value: Any) -> str:
    """Describe a value for an error message: shortly, and without any of its text, which may be a prompt."""
    if type(value) is dict:
        return "an object"
    if type(value) is list:
        return "an array" if value else "an empty array"
    if type(value) is str:
        return f"a string of {len(value)} characters" if value else "an empty string"
    return orjson.dumps(value).decode()


@dataclass(frozen=True, slots=True)
class _Rule:
    """Describe the valid values of a parameter, and those of them that only some engines take."""

    expected: str
    accepts: Callable[[Any], bool]
    gated: Callable[[Any], bool] | None = None

    def check(self, path: str, value: Any) -> None:
        if not self.accepts(value):
            raise _invalid(path, f"'{path}' must be {self.expected}, not {_describe(value)}")

    def gate(self, gated: Callable[[Any], bool]) -> _Rule:
        return replace(self, gated=gated)


# JSON has a fixed set of types, so `type(...) is` is precise; it also keeps `true` from being accepted as 1.
def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _all(kind: type, values: Any) -> bool:
    return type(values) is list and all(type(value) is kind for value in values)


def _above(limit: int) -> Callable[[Any], bool]:
    return lambda value: bool(value > limit)


_NUMBER = _Rule("a number", lambda v: type(v) in (int, float))
_BOOLEAN = _Rule("a boolean", _is(bool))
_STRING = _Rule("a string", _is(str))
_OBJECT = _Rule("an object", _is(dict))
_GATED = _OBJECT.gate(lambda _: True)
_ARRAY = _Rule("an array", _is(list))
_STRINGS = _Rule("an array of strings", lambda v: _all(str, v))
_MODEL = _Rule(
    f"a non-empty string of at most {MAX_MODEL_CHARS} characters without control characters",
    lambda v: type(v) is str and 0 < len(v.strip()) <= len(v) <= MAX_MODEL_CHARS and not _CONTROL.search(v),
)
_ROLE = _Rule("a non-empty string", lambda v: type(v) is str and bool(v))
_CONTENT = _Rule("a string or a non-empty array of parts", lambda v: type(v) is str or (type(v) is list and bool(v)))
_CHOICE = _Rule("a string or an object", lambda v: type(v) in (str, dict)).gate(lambda v: v not in ("none", "auto"))


def _is_prompt(value: Any) -> bool:
    """Return whether this is one of OpenAI's forms: a text, several texts, token ids, or several lists of token ids."""
    if type(value) is str:
        return True
    if type(value) is not list or not value:
        return False
    return _all(str, value) or _all(int, value) or all(prompt and _all(int, prompt) for prompt in value)


def _is_one_text(prompt: Any) -> bool:
    return type(prompt) is str or (len(prompt) == 1 and type(prompt[0]) is str)


_COMMON = {
    "model": _MODEL,
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "max_tokens": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "seed": _NUMBER,
    "stop": _Rule("a string or an array", lambda v: type(v) in (str, list)),
    "n": _NUMBER.gate(_above(1)),
    "logit_bias": _Rule("an object or an array", lambda v: type(v) in (dict, list)),
    "user": _STRING,
}
_CHAT = {
    "messages": _Rule("a non-empty array", lambda v: type(v) is list and bool(v)),
    "max_completion_tokens": _NUMBER,
    "logprobs": _BOOLEAN.gate(bool),
    "top_logprobs": _NUMBER.gate(_above(0)),
    "tools": _ARRAY.gate(bool),
    "functions": _ARRAY.gate(bool),
    "tool_choice": _CHOICE,
    "function_call": _CHOICE,
    "parallel_tool_calls": _BOOLEAN,
    "modalities": _STRINGS.gate(lambda kinds: "audio" in kinds),
    "audio": _GATED,
    "prediction": _GATED,
    "web_search_options": _GATED,
    "response_format": _OBJECT.gate(lambda v: v.get("type") != "text"),
    "reasoning_effort": _STRING,
    "service_tier": _STRING,
    "metadata": _OBJECT,
    "store": _BOOLEAN,
}
_TEXT = {
    "prompt": _Rule("a string, an array of strings, or token ids", _is_prompt).gate(lambda v: not _is_one_text(v)),
    # OpenAI does not define `false` here, but clients send it for "no logprobs".
    "logprobs": _Rule("a number or a boolean", lambda v: type(v) in (int, float, bool)).gate(lambda v: v is not False),
    "best_of": _NUMBER.gate(_above(1)),
    "echo": _BOOLEAN.gate(bool),
    "suffix": _STRING.gate(bool),
}
RULES = {Endpoint.CHAT_COMPLETIONS: _COMMON | _CHAT, Endpoint.COMPLETIONS: _COMMON | _TEXT}
REQUIRED = {Endpoint.CHAT_COMPLETIONS: ("model", "messages"), Endpoint.COMPLETIONS: ("model", "prompt")}
