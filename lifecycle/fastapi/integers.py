"""Read integers from query parameters and from the fields of a JSON body."""

from __future__ import annotations

from typing import Any

from lifecycle.fastapi.errors import ApiError
from lifecycle.types import ErrorType

_DIGITS = 20
_SHOWN_CHARACTERS = 50  # of a value that is refused


def parse_integer(text: str | None, name: str, default: int, low: int, high: int) -> int:
    """Return a query parameter as an integer from `low` to `high`; `default` without one. Raises ApiError (400)."""
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    if not (is_number and low <= int(text) <= high):
        raise _refusal(text, name, low, high)
    return int(text)


def integer_field(value: Any, name: str, default: int, low: int, high: int) -> int:
    """Return a JSON integer, or a string of its digits, from `low` to `high`. Raises ApiError (400)."""
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        raise _refusal(value, name, low, high)
    return parse_integer(None if value is None else str(value), name, default, low, high)


def _refusal(value: object, name: str, low: int, high: int) -> ApiError:
    shown = f"{value!r:.{_SHOWN_CHARACTERS}}"
    return ApiError(ErrorType.VALIDATION, f"{name} must be an integer from {low} to {high}, not {shown}", param=name)
