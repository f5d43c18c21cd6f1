"""Describe what is written for one event of an engine."""

from __future__ import annotations

from typing import Any, NamedTuple


class Produced(NamedTuple):
    """Hold the JSON of an event, and what the event says about its answer.

    `encoded` is empty when nothing is left to write. `is_opening` marks an event that says only that an answer begins:
    it is no reason to keep a request from another worker. `finish_reason` and `usage` are in OpenAI's terms for chat.
    `item_ids` are ids of items that the event begins or has; clients may refer to them in later calls.
    """

    encoded: bytes
    has_content: bool = False  # it carries a part of the answer: not a bare role, finish reason or usage
    is_opening: bool = False
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    item_ids: tuple[str, ...] = ()
