"""Build the response object of OpenAI's Responses API, as it is before there is any output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lifecycle.types import Event

OPENINGS = frozenset({"response.queued", "response.created", "response.in_progress"})
"""The types of the events that say only that an answer begins."""

ENDINGS = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""The types of the events that end a stream; each has the whole response object."""

# The value of a field that the body does not have. The others of a response are in `new_response`.
_DEFAULTS: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def is_opening(event: Event) -> bool:
    """Return whether the event says only that an answer begins."""
    return isinstance(event, dict) and event.get("type") in OPENINGS


def new_response(request_id: str, created_at: float, body: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Return the response object for a call with this body.

    `created_at` is in Unix seconds; `status` is one of OpenAI's: queued, in_progress, completed, failed, cancelled or
    incomplete. The result's `output` is a new empty list.
    """
    given = {name: body[name] for name in _DEFAULTS if body.get(name) is not None}
    return {
        "id": request_id,
        "object": "response",
        "created_at": int(created_at),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": body.get("model"),
        "output": [],
        "usage": None,
        **_DEFAULTS,
        **given,
    }
