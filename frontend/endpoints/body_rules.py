"""Check the fields of a call's body, by rules that all endpoints share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import MODEL_CHARS, is_model_name
from lifecycle.types import ErrorType

MAX_DEPTH = 100  # far above any real body, and far below the limits of the encoders on the way to the engine


def load_object(raw: bytes) -> dict[str, Any]:
    """Return the object that a body is. Raises ApiError, 400, when it is no JSON object or is nested too deeply."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(None, f"The body is not valid JSON: {error}") from None
    if type(body) is not dict:
        raise invalid(None, f"The body must be a JSON object, not {_describe(body)}")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, body):
        raise invalid(None, f"The body is nested more than {MAX_DEPTH} levels deep")
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


def invalid(param: str | None, message: str) -> ApiError:
    """Return the error 400 for an invalid body; `param` is the path of the field."""
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
class Rule:
    """Describe the valid values of a parameter."""

    expected: str
    accepts: Callable[[Any], bool]

    def check(self, path: str, value: Any) -> None:
        """Raise ApiError, 400, when the value is invalid."""
        if not self.accepts(value):
            raise invalid(path, f"'{path}' must be {self.expected}, not {_describe(value)}")


# JSON has a fixed set of types, so `type(...) is` is precise; it also keeps `true` from being accepted as 1.
def is_a(kind: type) -> Callable[[Any], bool]:
    """Return a check for exactly this type."""
    return lambda value: type(value) is kind


def all_are(kind: type, values: Any) -> bool:
    """Return whether this is a list of values of exactly this type."""
    return type(values) is list and all(type(value) is kind for value in values)


NUMBER = Rule("a number", lambda v: type(v) in (int, float))
BOOLEAN = Rule("a boolean", is_a(bool))
STRING = Rule("a string", is_a(str))
OBJECT = Rule("an object", is_a(dict))
ARRAY = Rule("an array", is_a(list))
STRINGS = Rule("an array of strings", lambda v: all_are(str, v))
MODEL = Rule(
    f"a non-empty string of at most {MODEL_CHARS} characters without control characters",
    lambda v: type(v) is str and is_model_name(v),
)
