"""What an OpenAI-compatible server says in one stream, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from lifecycle.errors import STREAM_ENDED
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import EngineError
from worker.engines.sse import MAX_EVENT_BYTES, Event, EventParser, EventTooLong

_DONE = b"[DONE]"
_MAX_MESSAGE_CHARS = 1000


class Answer:
    """Turns the bytes of a stream into texts; finish reason and usage go to the context as they come.

    `finished`: the upstream has said all it had to say. `ended`: and there is nothing left to read.
    """

    __slots__ = ("_context", "_parser", "ended", "finished")

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._parser = EventParser()
        self.finished = False
        self.ended = False

    def feed(self, chunk: bytes | None) -> Iterator[str]:
        """The texts that `chunk` completes; None is the end of the body.

        Raises EngineError for an error frame, for what is no chunk at all, and for an end that came too early.
        """
        try:
            events = self._parser.end() if chunk is None else self._parser.feed(chunk)
        except EventTooLong:
            raise EngineError(f"the upstream sent an event of more than {MAX_EVENT_BYTES} bytes") from None
        for event in events:
            if event.data == _DONE:
                self.finished = self.ended = True
                return
            if text := self._read(event, torn=chunk is None):
                yield text
        if chunk is None:
            self.ended = True
            if not self.finished:
                raise EngineError(STREAM_ENDED)

    def _read(self, event: Event, *, torn: bool) -> str:
        if event.name == b"error":
            raise EngineError(error_message(event.data) or "the upstream reported an error without saying which")
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            if torn:
                return ""  # half an event: the missing end says the rest
            raise EngineError("the upstream sent an event that is no JSON") from None
        try:
            return self._chunk(payload)
        except (AttributeError, KeyError, TypeError):
            raise EngineError("the upstream sent an event that is no completion chunk") from None

    def _chunk(self, payload: dict[str, Any]) -> str:
        if payload.get("error") or payload.get("object") == "error":
            raise EngineError(error_message(payload) or "the upstream reported an error without saying which")
        if isinstance(tokens := (payload.get("usage") or {}).get("prompt_tokens"), int):
            self._context.input_tokens = tokens
        if not (choices := payload.get("choices")):
            return ""
        choice = choices[0]
        if reason := choice.get("finish_reason"):
            self._context.finish_reason = str(reason)
            self.finished = True
        delta = choice.get("delta")
        text = choice.get("text") if delta is None else delta.get("content")
        return text if isinstance(text, str) else ""


def error_message(body: bytes | dict[str, Any]) -> str:
    """The upstream's own words, from any of the shapes in use; what is no JSON is its own message."""
    said: Any = body
    if isinstance(body, bytes):
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            said = body.decode(errors="replace")
    # {"error": {"message"}}, {"error": "…"}, {"message"}, {"detail": "…"} or {"detail": […]}
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(key):
            said = said[key]
    if isinstance(said, dict | list):
        said = orjson.dumps(said).decode() if said else ""
    return str(said or "").strip()[:_MAX_MESSAGE_CHARS]
