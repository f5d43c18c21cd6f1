"""Build the message object of Anthropic's Messages API, and translate its reasons to stop."""

from __future__ import annotations

from typing import Any

from lifecycle.types import Event

OPENINGS = frozenset({"message_start", "ping"})
"""The types of the events that say only that an answer begins."""

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STOP_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def is_opening(event: Event) -> bool:
    """Return whether the event says only that an answer begins."""
    return isinstance(event, dict) and event.get("type") in OPENINGS


def new_message(request_id: str, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a `message_start` event: it has no content yet. `usage` has Anthropic's names."""
    return {
        "id": request_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def finish_reason_of(stop_reason: object) -> str | None:
    """Return chat's finish reason for a `stop_reason`, which is itself where it is unknown; None without one."""
    return _FINISH_REASONS.get(stop_reason, stop_reason) if isinstance(stop_reason, str) else None


def stop_reason_of(finish_reason: str) -> str:
    """Return the `stop_reason` for a finish reason of chat; `end_turn` for one that is unknown."""
    return _STOP_REASONS.get(finish_reason, "end_turn")
