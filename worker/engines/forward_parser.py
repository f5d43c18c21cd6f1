"""Parse the response to a forward, which is one JSON object, and the answer as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from lifecycle.types import Event
from worker.engines.answer_parser import AnswerParser


class ForwardParser(AnswerParser):
    """Yield the JSON object that a response is."""

    __slots__ = ()

    not_an_event: ClassVar = "the upstream answered with a stream; this endpoint has one JSON object as its answer"
    not_an_answer: ClassVar = "the upstream's answer is not a JSON object; check that its API is OpenAI-compatible"

    def _event(self, payload: dict[str, Any]) -> Event | None:
        raise TypeError("a stream")

    def _whole_event(self, answer: dict[str, Any]) -> Iterator[Event]:
        self.finished = True
        yield answer
