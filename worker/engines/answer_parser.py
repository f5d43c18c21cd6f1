"""Parse the response of an upstream, which is a stream of events or one JSON object, whatever its endpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson

from lifecycle.errors import STREAM_ENDED, EngineError, OutputTooLarge, Unavailable
from lifecycle.types import Event
from worker.engines.sse import BYTE_ORDER_MARK, MAX_EVENT_BYTES, EventTooLong, ServerSentEvent, SseParser
from worker.engines.upstream_errors import Scrub, stream_error

_DONE = b"[DONE]"
_LONGEST_DONE = 64  # with white space around it
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
NOT_JSON = "the upstream sent an event that is not JSON; check that its API is OpenAI-compatible"


class AnswerParser(ABC):
    """Turn the bytes of one response into events. A subclass knows the events of one endpoint.

    - `started`: an event has been returned that does not only open the answer
    - `finished`: the answer is complete. Nothing fails it then
    - `ended`: nothing of interest is left to read
    """

    __slots__ = ("_head", "_max_output_bytes", "_parser", "_scrub", "_whole", "ended", "finished", "started")

    not_an_event: ClassVar[str]
    """The message for JSON in a stream that is no event of the endpoint."""

    not_an_answer: ClassVar[str]
    """The message for a response without a stream that is no answer of the endpoint."""

    def __init__(self, scrub: Scrub = str, max_output_bytes: int = MAX_OUTPUT_BYTES) -> None:
        """Start at the beginning of a response.

        `scrub` removes what clients must not see from messages. A response that is one JSON object may have
        `max_output_bytes`.
        """
        self._scrub = scrub
        self._max_output_bytes = max_output_bytes
        self._parser = SseParser()
        self._head: bytes | None = b""  # what came before the first byte that shows the format; None behind it
        self._whole: bytearray | None = None  # the body so far, if it is one JSON object
        self.started = False
        self.finished = False
        self.ended = False

    @abstractmethod
    def _event(self, payload: dict[str, Any]) -> Event | None:
        """Return the event of one JSON object of the stream; None if nothing of it is left. Set `finished`.

        Raise AttributeError, KeyError or TypeError for a payload that is no event of the endpoint.
        """

    @abstractmethod
    def _whole_event(self, answer: dict[str, Any]) -> Iterator[Event]:
        """Yield the events of a response that is one JSON object and no error. Set `finished` before the first.

        Raise as `_event` does, or EngineError.
        """

    def _error(self, payload: dict[str, Any], name: bytes) -> dict[str, Any] | None:
        """Return the error object in an event of the stream, or in a whole answer; None when it is no error.

        `name` is the value of the event's `event:` line, or empty.
        """
        return payload if name == b"error" or payload.get("error") or payload.get("object") == "error" else None

    def _is_opening(self, event: Event) -> bool:
        """Return whether the event says only that an answer begins. Another server can still give the answer then."""
        return False

    def _is_complete(self) -> bool:
        """Return whether a body that ends now, without an event that says so, has the whole answer."""
        return False

    def feed(self, chunk: bytes | None) -> Iterator[Event]:
        """Yield the events that `chunk` completes. A chunk of None marks the end of the body.

        Raise EngineError or Unavailable for an error object, for what is no event of the endpoint, and for a body that
        ends before the answer is complete; OutputTooLarge for an event that is longer than MAX_EVENT_BYTES.
        """
        try:
            yield from self._feed(chunk)
        except EventTooLong:
            self.ended = True
            if not self.finished:
                raise OutputTooLarge(
                    f"the upstream sent an event of more than {MAX_EVENT_BYTES} bytes, the limit"
                ) from None

    def _feed(self, chunk: bytes | None) -> Iterator[Event]:
        if self._head is not None and chunk is not None:
            chunk = self._detect(chunk)
        if self._whole is not None:
            yield from self._read_whole(chunk)
            return
        for found in self._parser.end() if chunk is None else self._parser.feed(chunk):
            if len(found.data) < _LONGEST_DONE and found.data.strip() == _DONE:
                self.finished = self.ended = True
                return
            event = self._read(found, truncated=chunk is None)
            if event is not None:
                self.started = self.started or not self._is_opening(event)
                yield event
            if self.ended:
                return
        if chunk is None:
            self.ended = True
            if not self.finished:
                self._fail_early_end()

    def _detect(self, chunk: bytes) -> bytes:
        """Decide by the first byte whether the body is a stream or one JSON object, and return what is to be parsed."""
        assert self._head is not None
        head = self._head + chunk
        visible = head.removeprefix(BYTE_ORDER_MARK).lstrip()
        if not visible or (len(head) < 3 and BYTE_ORDER_MARK.startswith(head)):
            self._head = head[:1024]
            return b""
        self._head = None
        if visible.startswith((b"{", b"[")):
            self._whole = bytearray()
            return visible
        return head

    def _read_whole(self, chunk: bytes | None) -> Iterator[Event]:
        """Collect a body that is one JSON object, and yield its events at the end."""
        assert self._whole is not None
        if chunk is not None:
            self._whole += chunk
            if len(self._whole) > self._max_output_bytes:
                raise OutputTooLarge(f"the upstream's answer has more than {self._max_output_bytes} bytes, the limit")
            return
        self.ended = True
        try:
            answer = orjson.loads(bytes(self._whole))
        except orjson.JSONDecodeError:
            return self._fail_early_end()
        if not isinstance(answer, dict):
            raise EngineError(self.not_an_answer)
        error = self._error(answer, b"")
        if error is not None:
            raise stream_error(error, self._scrub, started=False)
        try:
            for event in self._whole_event(answer):
                self.started = True
                yield event
        except (AttributeError, KeyError, TypeError):
            self._fail(self.not_an_event)

    def _read(self, found: ServerSentEvent, *, truncated: bool) -> Event | None:
        """Return the event in a server-sent event, if any. A `truncated` one may be cut off anywhere."""
        try:
            payload = orjson.loads(found.data)
        except orjson.JSONDecodeError:
            if found.name == b"error":
                self._fail_with(found.data)
            elif not truncated and found.data.strip():  # otherwise `_feed` reports the end that came too early
                self._fail(NOT_JSON)
            return None
        try:
            error = self._error(payload, found.name)
            if error is None:
                return self._event(payload)
            self._fail_with(error)
        except (AttributeError, KeyError, TypeError):
            self._fail(self.not_an_event)
        return None

    def _fail_with(self, error: bytes | dict[str, Any]) -> None:
        """Raise the exception for an upstream's error, unless the answer is complete."""
        if not self.finished:
            raise stream_error(error, self._scrub, started=self.started)

    def _fail(self, message: str) -> None:
        """Raise EngineError, unless the answer is complete."""
        if not self.finished:
            raise EngineError(message)

    def _fail_early_end(self) -> None:
        """Raise the error of a body that ended before its answer, unless what came is complete."""
        if self._is_complete():
            self.finished = True
        else:
            raise early_end(self.started)


def early_end(started: bool) -> EngineError | Unavailable:
    """Return the exception for an answer that broke off: Unavailable when none of its events had come."""
    return EngineError(STREAM_ENDED, 503) if started else Unavailable(STREAM_ENDED)
