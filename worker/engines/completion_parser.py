"""Parse the response stream of an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from lifecycle.errors import STREAM_ENDED, EngineError
from lifecycle.execution.context import EngineContext
from worker.engines.sse import MAX_EVENT_BYTES, EventTooLong, ServerSentEvent, SseParser

_DONE = b"[DONE]"
_MAX_MESSAGE_CHARS = 1000


class CompletionParser:
    """Turn the bytes of one response stream into the texts of its tokens.

    The finish reason and the usage are written to the engine's context as they come.

    - `finished`: the upstream has sent its finish reason or `[DONE]`, so the answer is complete
    - `ended`: nothing of interest is left to read
    """

    __slots__ = ("_context", "_parser", "ended", "finished")

    def __init__(self, context: EngineContext) -> None:
        """Start at the beginning of a stream; `context` receives its finish reason and usage."""
        self._context = context
        self._parser = SseParser()
        self.finished = False
        self.ended = False

    def feed(self, chunk: bytes | None) -> Iterator[str]:
        """Yield the texts that `chunk` completes. A chunk of None marks the end of the body.

        Raise EngineError for an error event, for an event that is not a completion chunk, for one that is longer than
        MAX_EVENT_BYTES, and for a body that ends before the answer is complete.
        """
        try:
            events = self._parser.end() if chunk is None else self._parser.feed(chunk)
        except EventTooLong:
            raise EngineError(f"the upstream sent an event of more than {MAX_EVENT_BYTES} bytes, the limit") from None
        for event in events:
            if event.data == _DONE:
                self.finished = self.ended = True
                return
            if text := self._read(event, truncated=chunk is None):
                yield text
        if chunk is None:
            self.ended = True
            if not self.finished:
                raise EngineError(STREAM_ENDED)

    def _read(self, event: ServerSentEvent, *, truncated: bool) -> str:
        """Return the text of an event, "" if it has none. A `truncated` event may be cut off anywhere."""
        if event.name == b"error":
            raise EngineError(
                error_message(event.data) or "the upstream reported an error without a message; see its log"
            )
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            if truncated:
                return ""  # `feed` reports the end that came too early
            raise EngineError(
                "the upstream sent an event that is not JSON; check that its API is OpenAI-compatible"
            ) from None
        try:
            return self._chunk(payload)
        except (AttributeError, KeyError, TypeError):
            raise EngineError(
                "the upstream sent an event that is not a completion chunk; check that its API is OpenAI-compatible"
            ) from None

    def _chunk(self, payload: dict[str, Any]) -> str:
        """Return the text of one completion chunk, "" if it has none.

        Raise EngineError for an error object, and AttributeError, KeyError or TypeError for any other shape.
        """
        if payload.get("error") or payload.get("object") == "error":
            raise EngineError(error_message(payload) or "the upstream reported an error without a message; see its log")
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
    """Return the error message in an upstream's error body, 1000 characters at most, "" if there is none.

    All shapes in use are understood. A body that is not JSON is itself the message.
    """
    found: Any = body
    if isinstance(body, bytes):
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = body.decode(errors="replace")
    # {"error": {"message"}}, {"error": "…"}, {"message"}, {"detail": "…"} or {"detail": […]}
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    if isinstance(found, dict | list):
        found = orjson.dumps(found).decode() if found else ""
    return str(found or "").strip()[:_MAX_MESSAGE_CHARS]
