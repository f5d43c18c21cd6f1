"""Write the answer of a forward as the body of a response."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lifecycle.tokens.items import End
from lifecycle.types import Event


class AnswerFold:
    """Keep the answer as it is."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Take the answer."""
        for event in events:
            if isinstance(event, dict):
                self._answer = event

    def body(self, request_id: str, model: str, created: int, end: End) -> dict[str, Any]:
        """Return the answer, which is the body of the response. It has no field of ours."""
        return self._answer
