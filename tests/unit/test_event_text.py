"""`lifecycle tail` prints the text of an answer in any format."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.formats.event_text import text_of


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ("a", "a"),
        ({"choices": [{"index": 0, "delta": {"content": "a"}}]}, "a"),
        ({"choices": [{"index": 0, "text": "a"}]}, "a"),
        ({"choices": [{"index": 1, "delta": {"content": "a"}}]}, ""),
        ({"choices": [{"index": 0, "delta": {"content": None}}]}, ""),
        ({"choices": []}, ""),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}, "a"),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a"}}, ""),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, ""),
        ({"type": "response.output_text.delta", "delta": "a"}, "a"),
        ({"type": "response.reasoning_text.delta", "delta": "a"}, ""),
        ({"input_tokens": 1}, ""),
    ],
)
def test_the_text_of_an_event(event: Any, text: str) -> None:
    assert text_of(event) == text
