"""Know the fields beside the choices of a completion chunk that workers and frontends treat specially."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENVELOPE = frozenset({"id", "object", "created", "model"})
"""The fields of a chunk that are not the engine's: the frontend writes its own."""

REPEATED_FIELDS = ("system_fingerprint", "service_tier")
"""The fields that servers send with the same value in every chunk.

A text, which has no fields, counts as a chunk with the values that came last. So a worker may leave them out.
"""


def repeated_fields(chunk: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a chunk that the texts behind it have too."""
    return {name: value for name in REPEATED_FIELDS if isinstance(value := chunk.get(name), str)}


def is_usage_rest(chunk: Mapping[str, Any]) -> bool:
    """Return whether this is what is left of a chunk that held the usage: no choices, and `usage` without figures."""
    return chunk.get("choices") == [] and "usage" in chunk and chunk["usage"] is None
