"""Read events of a token stream, whatever their format: their text, and the values that were yielded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from lifecycle.encoding import encode_json
from lifecycle.types import FORWARDS, Event


def text_of(event: Event) -> str:
    """Return the text that the event adds to the answer, of several choices to the first; '' when it adds none."""
    if isinstance(event, str):
        return event
    if not isinstance(event, dict):  # of an application's own endpoint
        return ""
    kind, delta = event.get("type"), event.get("delta")
    text: object = None
    if kind == "content_block_delta" and isinstance(delta, dict):
        text = delta.get("text")  # of the Messages API
    elif kind == "response.output_text.delta":
        text = delta  # of the Responses API
    elif kind is None:
        choices = event.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(first, dict) and first.get("index", 0) == 0:
            delta = first.get("delta")
            text = delta.get("content") if isinstance(delta, dict) else first.get("text")
    return text if isinstance(text, str) else ""


def events_of(endpoint: str, events: Sequence[Event]) -> Sequence[Any]:
    """Return the events as they were yielded: the answer of a forward may be in the stream as a text of JSON."""
    if endpoint not in FORWARDS:
        return events
    return [orjson.loads(event) if isinstance(event, str) else event for event in events]


def answers_as_text(endpoint: str, events: Sequence[Event]) -> Sequence[Event]:
    """Return the answers of a forward as texts of JSON, and the events of every other endpoint as they are."""
    if endpoint not in FORWARDS:
        return events
    return [event if isinstance(event, str) else encode_json(event).decode() for event in events]
