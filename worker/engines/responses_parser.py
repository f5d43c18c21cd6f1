"""Parse the response of an upstream that serves the Responses API itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from lifecycle.errors import EngineError
from lifecycle.formats import response_object
from lifecycle.formats.responses import status_of_code
from lifecycle.formats.responses_usage import to_responses_usage
from lifecycle.types import Event
from worker.engines.answer_parser import MAX_OUTPUT_BYTES, AnswerParser
from worker.engines.event_places import EventPlaces
from worker.engines.upstream_errors import Scrub
from worker.engines.whole_response import events_of

_ENDINGS = ("response.completed", "response.incomplete")


class ResponsesParser(AnswerParser):
    """Turn the bytes of one response into events of the Responses API, without their `sequence_number`.

    The answer is complete when `response.completed` or `response.incomplete` came. vLLM sends the first with the
    status of the second, which is corrected, and what llama.cpp leaves out is completed. A response that is one JSON
    object becomes the events that a stream of it would have.
    """

    __slots__ = ("_places",)

    not_an_event: ClassVar = (
        "the upstream sent an event that is not one of the Responses API; check that its API is OpenAI-compatible"
    )
    not_an_answer: ClassVar = (
        "the upstream answered without a stream and without an output; check that its API is OpenAI-compatible"
    )

    def __init__(self, scrub: Scrub = str, max_output_bytes: int = MAX_OUTPUT_BYTES) -> None:
        super().__init__(scrub, max_output_bytes)
        self._places = EventPlaces()

    def _event(self, payload: dict[str, Any]) -> Event | None:
        kind = payload["type"]
        if not isinstance(kind, str):
            raise TypeError("an event's type is no text")
        payload.pop("sequence_number", None)
        if kind in _ENDINGS:
            _settle(payload["response"])
            if payload["response"].get("status") == "incomplete":
                payload["type"] = "response.incomplete"
            self.finished = self.ended = True
        else:
            self._places.complete(payload)
        return payload

    def _whole_event(self, answer: dict[str, Any]) -> Iterator[Event]:
        if not isinstance(answer.get("output"), list) or answer.get("status") in ("queued", "in_progress"):
            raise EngineError(self.not_an_answer)
        _settle(answer)
        events = events_of(answer)
        self.finished = True
        yield from events

    def _error(self, payload: dict[str, Any], name: bytes) -> dict[str, Any] | None:
        """Return the error object, with the HTTP status that OpenAI's code of it stands for."""
        kind, response = payload.get("type"), payload.get("response")
        if kind == "response.failed" or payload.get("status") == "failed":
            found = (response if isinstance(response, dict) else payload).get("error") or {}
        elif kind == "error" or name == b"error":  # OpenAI's is flat, and its type is the event's
            found = payload.get("error") or {key: value for key, value in payload.items() if key != "type"}
        else:
            return super()._error(payload, name)
        if not isinstance(found, dict):
            return {"error": found}
        return {"error": {"status": status_of_code(found.get("code")), **found}}

    def _is_opening(self, event: Event) -> bool:
        return response_object.is_opening(event)


def _settle(response: dict[str, Any]) -> None:
    """Complete the usage of a response that has ended."""
    usage = response.get("usage")
    if isinstance(usage, dict):
        response["usage"] = to_responses_usage(usage)
