"""Parse the response of an OpenAI-compatible server into events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from lifecycle.errors import STREAM_ENDED, EngineError, OutputTooLarge, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.formats.chunks import ENVELOPE, repeated_fields
from lifecycle.types import Event
from worker.engines.sse import BYTE_ORDER_MARK, MAX_EVENT_BYTES, EventTooLong, ServerSentEvent, SseParser
from worker.engines.upstream_errors import Scrub, stream_error

_DONE = b"[DONE]"
_LONGEST_DONE = 64  # with white space around it
_PLAIN_CHUNK = ENVELOPE | {"choices"}
_PLAIN_CHOICE = frozenset({"index", "delta", "text", "finish_reason"})
_MAX_OUTPUT_BYTES = 64 * 1024 * 1024
NOT_JSON = "the upstream sent an event that is not JSON; check that its API is OpenAI-compatible"
NOT_A_CHUNK = "the upstream sent an event that is not a completion chunk; check that its API is OpenAI-compatible"
NO_CHOICES = "the upstream answered without a stream and without choices; check that its API is OpenAI-compatible"


class CompletionParser:
    """Turn the bytes of one response into events.

    A chunk that holds only text of choice 0 becomes a `str`, every other one a `dict` without its envelope and without
    fields that are null. Once an event has had a `system_fingerprint` or a `service_tier`, a chunk with the same values
    is a `str` too, because the frontend repeats them. A response that is one JSON object instead of a stream becomes
    one event. The finish reason of choice 0 and the usage are written to the engine's context as they come.

    - `started`: an event has been returned
    - `finished`: the answer is complete: every choice has its finish reason, or `[DONE]` came. Nothing fails it then
    - `ended`: nothing of interest is left to read
    """

    __slots__ = (
        "_choices",
        "_context",
        "_finished_choices",
        "_head",
        "_max_output_bytes",
        "_parser",
        "_repeated",
        "_scrub",
        "_seen_choices",
        "_whole",
        "ended",
        "finished",
        "started",
    )

    def __init__(
        self,
        context: EngineContext,
        choices: int = 1,
        scrub: Scrub = str,
        max_output_bytes: int = _MAX_OUTPUT_BYTES,
    ) -> None:
        """Start at the beginning of a response to a call that asks for so many `choices`.

        `context` receives the finish reason and the usage; `scrub` removes what clients must not see from messages.
        A response that is one JSON object may have `max_output_bytes`.
        """
        self._context = context
        self._choices = choices
        self._scrub = scrub
        self._max_output_bytes = max_output_bytes
        self._parser = SseParser()
        self._head: bytes | None = b""  # what came before the first byte that shows the format; None behind it
        self._whole: bytearray | None = None  # the body so far, if it is one JSON object
        self._repeated: dict[str, Any] = {}  # fields that the frontend adds to a text
        self._seen_choices: set[int] = set()
        self._finished_choices: set[int] = set()
        self.started = False
        self.finished = False
        self.ended = False

    def feed(self, chunk: bytes | None) -> Iterator[Event]:
        """Yield the events that `chunk` completes. A chunk of None marks the end of the body.

        Raise EngineError or Unavailable for an error object, for what is not a completion chunk, and for a body that
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
                self.started = True
                yield event
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
        """Collect a body that is one JSON object, and yield its event at the end."""
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
            return self._fail(NO_CHOICES)
        if _is_error(answer):
            raise stream_error(answer, self._scrub, started=False)
        if not answer.get("choices"):
            raise stream_error(answer, self._scrub, started=False) if "detail" in answer else EngineError(NO_CHOICES)
        try:
            event = self._event({**answer, "choices": [_as_delta(choice) for choice in answer["choices"]]})
        except (AttributeError, KeyError, TypeError):
            return self._fail(NOT_A_CHUNK)
        self.finished = True
        if event is not None:
            self.started = True
            yield event

    def _read(self, found: ServerSentEvent, *, truncated: bool) -> Event | None:
        """Return the event in a server-sent event, if any. A `truncated` one may be cut off anywhere."""
        if found.name == b"error":
            if not self.finished:
                raise stream_error(found.data, self._scrub, started=self.started)
            return None
        try:
            payload = orjson.loads(found.data)
        except orjson.JSONDecodeError:
            if not truncated and found.data.strip():  # otherwise `_feed` reports the end that came too early
                self._fail(NOT_JSON)
            return None
        try:
            if _is_error(payload):
                if not self.finished:
                    raise stream_error(payload, self._scrub, started=self.started)
                return None
            return self._event(payload)
        except (AttributeError, KeyError, TypeError):
            self._fail(NOT_A_CHUNK)
            return None

    def _event(self, payload: dict[str, Any]) -> Event | None:
        """Return the event of one chunk, or None when it has only a finish reason or a usage.

        Raise AttributeError, KeyError or TypeError for a payload that is not a chunk.
        """
        usage = payload.pop("usage", None)
        if isinstance(usage, dict):
            self._context.usage = usage
            if type(usage.get("prompt_tokens")) is int:
                self._context.input_tokens = usage["prompt_tokens"]
        choices = payload.get("choices") or []
        finish_reason = self._note_choices(choices)
        fields = {name: value for name, value in payload.items() if value is not None and name not in _PLAIN_CHUNK}
        plain = fields == self._repeated
        if plain and not choices:
            return None
        if plain and len(choices) == 1 and not (finish_reason and self._choices > 1):
            text = _only_text(choices[0])
            if finish_reason and not text and (text is not None or _is_bare(choices[0])):
                return None  # only the finish reason, which the context has
            if text is not None:
                return text
        if not choices and isinstance(usage, dict):
            return {"choices": [], "usage": None, **fields}
        self._repeated = self._repeated | repeated_fields(fields)
        return {"choices": choices, **fields}

    def _note_choices(self, choices: list[dict[str, Any]]) -> bool:
        """Note which choices have come and which have finished. Return whether one of these finishes."""
        found = False
        for choice in choices:
            index = choice.get("index") or 0
            if index not in self._seen_choices:
                self._seen_choices.add(index)
            if reason := choice.get("finish_reason"):
                found = True
                self._finished_choices.add(index)
                if index == 0 and not self._context.finish_reason:
                    self._context.finish_reason = str(reason)
        if found and len(self._finished_choices) >= self._choices and self._seen_choices <= self._finished_choices:
            self.finished = True
        return found

    def _fail(self, message: str) -> None:
        """Raise EngineError, unless the answer is complete."""
        if not self.finished:
            raise EngineError(message)

    def _fail_early_end(self) -> None:
        """Raise the error of a body that ended before its answer, unless every choice that came has finished."""
        if self._seen_choices and self._seen_choices <= self._finished_choices:
            self.finished = True
        else:
            raise early_end(self.started)


def early_end(started: bool) -> EngineError | Unavailable:
    """Return the exception for an answer that broke off: Unavailable when none of its events had come."""
    return EngineError(STREAM_ENDED, 503) if started else Unavailable(STREAM_ENDED)


def _has_only(fields: dict[str, Any], names: frozenset[str]) -> bool:
    """Return whether all other fields than `names` are null."""
    return not [name for name, value in fields.items() if value is not None and name not in names]


def _is_error(payload: dict[str, Any]) -> bool:
    return bool(payload.get("error")) or payload.get("object") == "error"


def _only_text(choice: dict[str, Any]) -> str | None:
    """Return the text of a choice that holds nothing but text of choice 0, otherwise None.

    The role "assistant" beside a text is left out: the first event of an answer gets it anyway.
    """
    if choice.get("index") or not _has_only(choice, _PLAIN_CHOICE):
        return None
    delta = choice.get("delta")
    if delta is None:
        text = choice.get("text")
        return text if isinstance(text, str) else None
    text = delta.get("content")
    if not isinstance(text, str):
        return None
    if len(delta) == 1:
        return text
    for name, value in delta.items():
        if value is not None and name != "content" and not (name == "role" and value == "assistant" and text):
            return None
    return text


def _is_bare(choice: dict[str, Any]) -> bool:
    """Return whether a choice of index 0 has nothing but a finish reason."""
    if choice.get("index") or not _has_only(choice, _PLAIN_CHOICE):
        return False
    return not any(value is not None for value in (choice.get("delta") or {}).values())


def _as_delta(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice of a unary answer in the form of a stream's choice."""
    message = choice.get("message")
    if message is None:
        return choice
    delta = {name: value for name, value in message.items() if value is not None}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
    return {name: value for name, value in choice.items() if name != "message"} | {"delta": delta}
