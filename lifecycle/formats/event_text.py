"""Read the text of the answer from an event, whatever its format."""

from __future__ import annotations

from lifecycle.types import Event


def text_of(event: Event) -> str:
    """Return the text that the event adds to the answer, of several choices to the first; '' when it adds none."""
    if isinstance(event, str):
        return event
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
