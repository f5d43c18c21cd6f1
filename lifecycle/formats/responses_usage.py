"""Convert the usage of an answer between the names of chat completions and those of the Responses API.

Fields that have no other name, such as those of a vendor, keep theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "prompt_tokens_details": "input_tokens_details",
    "completion_tokens_details": "output_tokens_details",
}
_CHAT_NAMES = {responses: chat for chat, responses in _NAMES.items()}


def to_responses_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return chat's usage with the names of Responses; None for None.

    What a client of Responses relies on is always there: both counts, their sum, and how many tokens were read from
    the cache, were written to it, and were spent on reasoning. A number that is unknown is 0.
    """
    if usage is None:
        return None
    named = _renamed(usage, _NAMES)
    read, written = _count(named.get("input_tokens")), _count(named.get("output_tokens"))
    return named | {
        "input_tokens": read,
        "input_tokens_details": _details(named.get("input_tokens_details"), "cached_tokens", "cache_write_tokens"),
        "output_tokens": written,
        "output_tokens_details": _details(named.get("output_tokens_details"), "reasoning_tokens"),
        "total_tokens": _count(named.get("total_tokens")) or read + written,
    }


def to_chat_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the usage of Responses with chat's names; None for None."""
    return None if usage is None else _renamed(usage, _CHAT_NAMES)


def _renamed(usage: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in usage.items()}


def _details(details: Any, *names: str) -> dict[str, Any]:
    given = details if isinstance(details, Mapping) else {}
    return {**given, **{name: _count(given.get(name)) for name in names}}


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
