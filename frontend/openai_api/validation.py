"""Validate the body of an OpenAI completion call.

A body that OpenAI itself would refuse is answered with 400, one that asks for an unsupported feature with 501.
Parameters that are not listed here are left to the engine, as are the contents of images, audio and files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from lifecycle.fastapi.errors import ApiError
from lifecycle.types import Endpoint, ErrorType, RequestType

MAX_DEPTH = 100  # far above any real body, and far below the limits of the encoders on the way to the engine
MAX_MODEL_CHARS = 256
MAX_STOPS = 4
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CONTENT_OPTIONAL = ("assistant", "function")  # roles; an assistant's message may consist of tool calls alone


class Call(NamedTuple):
    """Hold a valid call. `body` is the parsed object, unchanged; the engine gets it."""

    endpoint: Endpoint
    model: str
    request_type: RequestType
    body: dict[str, Any]
    include_usage: bool


def parse(endpoint: Endpoint, raw: bytes) -> Call:
    """Parse and check a body. Raises ApiError, 400 or 501, that names the invalid or unsupported field in `param`."""
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

    # Checked last, so that a call which is answered with 501 is valid otherwise.
    for name, value, rule in given:
        if rule.unsupported is not None and rule.unsupported(value):
            raise ApiError(
                ErrorType.NOT_IMPLEMENTED,
                f"This server does not support '{name}' with this value; omit it, or choose another value",
                code="unsupported_parameter",
                param=name,
            )
    request_type = RequestType.STREAM if body.get("stream") else RequestType.UNARY
    return Call(endpoint, body["model"], request_type, body, include_usage)


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
    return type(message) is dict and message.get("role") in ROLES and type(message.get("content")) is str


def _check_message(path: str, message: Any) -> None:
    _OBJECT.check(path, message)
    role, content = message.get("role"), message.get("content")
    _ROLE.check(f"{path}.role", role)
    if content is None and role in _CONTENT_OPTIONAL:
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
    """Describe the valid values of a parameter, and those of them that ask for an unsupported feature."""

    expected: str
    accepts: Callable[[Any], bool]
    unsupported: Callable[[Any], bool] | None = None

    def check(self, path: str, value: Any) -> None:
        if not self.accepts(value):
            raise _invalid(path, f"'{path}' must be {self.expected}, not {_describe(value)}")

    def unless(self, unsupported: Callable[[Any], bool]) -> _Rule:
        return replace(self, unsupported=unsupported)


# JSON has a fixed set of types, so `type(...) is` is precise; it also keeps `true` from being accepted as 1.
def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _all(kind: type, values: Any) -> bool:
    return type(values) is list and all(type(value) is kind for value in values)


def _number(low: float, high: float) -> _Rule:
    return _Rule(f"a number between {low} and {high}", lambda v: type(v) in (int, float) and low <= v <= high)


def _integer(low: int, high: int, expected: str) -> _Rule:
    return _Rule(expected, lambda v: type(v) is int and low <= v <= high)


_BOOLEAN = _Rule("a boolean", _is(bool))
_STRING = _Rule("a string", _is(str))
_OBJECT = _Rule("an object", _is(dict))
_UNSUPPORTED = _OBJECT.unless(lambda _: True)
_ARRAY = _Rule("an array", _is(list))
_STRINGS = _Rule("an array of strings", lambda v: _all(str, v))
_COUNT = _integer(1, 2**63 - 1, "an integer of at least 1")
_MODEL = _Rule(
    f"a non-empty string of at most {MAX_MODEL_CHARS} characters without control characters",
    lambda v: type(v) is str and 0 < len(v.strip()) <= len(v) <= MAX_MODEL_CHARS and not _CONTROL.search(v),
)
_ROLE = _Rule(f"one of {', '.join(ROLES)}", lambda v: v in ROLES)
_CONTENT = _Rule("a string or a non-empty array of parts", lambda v: type(v) is str or (type(v) is list and bool(v)))
_CHOICE = _Rule("a string or an object", lambda v: type(v) in (str, dict)).unless(lambda v: v not in ("none", "auto"))


def _is_stop(value: Any) -> bool:
    return type(value) is str or (_all(str, value) and len(value) <= MAX_STOPS)


def _is_bias(value: Any) -> bool:
    return type(value) is dict and all(type(v) in (int, float) and -100 <= v <= 100 for v in value.values())


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
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "max_tokens": _COUNT,
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(-(2**63), 2**63 - 1, "a 64-bit integer"),
    "stop": _Rule(f"a string or an array of at most {MAX_STOPS} strings", _is_stop),
    "n": _COUNT.unless(lambda n: n > 1),
    "logit_bias": _Rule("an object whose values are numbers between -100 and 100", _is_bias),
    "user": _STRING,
}
_CHAT = {
    "messages": _Rule("a non-empty array", lambda v: type(v) is list and bool(v)),
    "max_completion_tokens": _COUNT,
    "logprobs": _BOOLEAN.unless(bool),
    "top_logprobs": _integer(0, 20, "an integer between 0 and 20").unless(bool),
    "tools": _ARRAY.unless(bool),
    "functions": _ARRAY.unless(bool),
    "tool_choice": _CHOICE,
    "function_call": _CHOICE,
    "parallel_tool_calls": _BOOLEAN,
    "modalities": _STRINGS.unless(lambda kinds: "audio" in kinds),
    "audio": _UNSUPPORTED,
    "prediction": _UNSUPPORTED,
    "web_search_options": _UNSUPPORTED,
    "response_format": _OBJECT,
    "reasoning_effort": _STRING,
    "service_tier": _STRING,
    "metadata": _OBJECT,
    "store": _BOOLEAN,
}
_TEXT = {
    "prompt": _Rule("a string or an array with one string", _is_prompt).unless(lambda v: not _is_one_text(v)),
    # OpenAI does not define `false` here, but clients send it for "no logprobs".
    "logprobs": _Rule("an integer between 0 and 5", lambda v: v is False or (type(v) is int and 0 <= v <= 5)).unless(
        lambda v: v is not False
    ),
    "best_of": _COUNT.unless(lambda n: n > 1),
    "echo": _BOOLEAN.unless(bool),
    "suffix": _STRING.unless(bool),
}
RULES = {Endpoint.CHAT_COMPLETIONS: _COMMON | _CHAT, Endpoint.COMPLETIONS: _COMMON | _TEXT}
REQUIRED = {Endpoint.CHAT_COMPLETIONS: ("model", "messages"), Endpoint.COMPLETIONS: ("model", "prompt")}
