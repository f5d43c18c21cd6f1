"""Translate usage objects between the Messages API and chat completions.

Chat's `prompt_tokens` are all tokens of the prompt. Anthropic's `input_tokens` are those of them that were neither read
from a cache nor written to one; `cache_read_input_tokens` and `cache_creation_input_tokens` have the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lifecycle.types import reported_tokens

_CACHES = ("cache_read_input_tokens", "cache_creation_input_tokens")


def merge(usage: Mapping[str, Any], later: object) -> dict[str, Any]:
    """Return a usage with the counts of a later one, which are totals. A count that is null changes nothing."""
    found = later if isinstance(later, dict) else {}
    return {**usage, **{name: value for name, value in found.items() if value is not None}}


def to_chat(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return chat's usage object. Counts that the usage does not have are left out."""
    fresh, output = reported_tokens(usage, "input_tokens"), reported_tokens(usage, "output_tokens")
    caches = {name: count for name in _CACHES if (count := reported_tokens(usage, name)) is not None}
    found: dict[str, Any] = {}
    if fresh is not None:
        found["prompt_tokens"] = fresh + sum(caches.values())
    if output is not None:
        found["completion_tokens"] = output
    if fresh is not None and output is not None:
        found["total_tokens"] = found["prompt_tokens"] + output
    if "cache_read_input_tokens" in caches:
        found["prompt_tokens_details"] = {"cached_tokens": caches["cache_read_input_tokens"]}
    thinking = reported_tokens(_details(usage, "output_tokens_details"), "thinking_tokens")
    if thinking is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": thinking}
    return found


def from_chat(usage: Mapping[str, Any] | None, output_events: int) -> dict[str, Any]:
    """Return the usage of the Messages API. Without a reported count the output is `output_events` tokens long."""
    given = usage or {}
    prompt = reported_tokens(given, "prompt_tokens") or 0
    output = reported_tokens(given, "completion_tokens")
    cached = reported_tokens(_details(given, "prompt_tokens_details"), "cached_tokens")
    found: dict[str, Any] = {"input_tokens": max(0, prompt - (cached or 0))}
    if cached is not None:
        found["cache_read_input_tokens"] = cached
    found["output_tokens"] = output_events if output is None else output
    thinking = reported_tokens(_details(given, "completion_tokens_details"), "reasoning_tokens")
    if thinking is not None:
        found["output_tokens_details"] = {"thinking_tokens": thinking}
    return found


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, dict) else {}
