"""Describe the attempt whose events are read or translated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lifecycle.types import Event


class Origin(NamedTuple):
    """Describe the attempt whose events are read. `created_at` is in Unix seconds."""

    request_id: str
    created_at: float
    body: dict[str, Any]
    emitted: Sequence[Event]  # the events that earlier attempts have left
