"""Encode tokens as server-sent events, or as the one body of a unary response.

This is the hot path: the parts that are the same in all events of a request are encoded once; only token texts and
numbers are encoded for each event. Every event has one `data:` line and no `event:` line.
"""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.errors import encodable
from lifecycle.types import Endpoint, ErrorType

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n\n"

_CHUNK_OBJECTS = {
    Endpoint.CHAT_COMPLETIONS: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}


class ChunkEncoder:
    """Encode the events of one request. It keeps no state between calls, so it can replay from any token."""

    __slots__ = ("_before_reason", "_close", "_envelope", "_first_open", "_open", "_text_close")

    def __init__(self, endpoint: Endpoint, request_id: str, model: str, created: int, include_usage: bool) -> None:
        chunk = {"id": request_id, "object": _CHUNK_OBJECTS[endpoint], "created": created, "model": model}
        self._envelope = b"data: " + orjson.dumps(chunk)[:-1] + b',"choices":['
        self._close = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"

        choice = self._envelope + b'{"index":0,'
        if endpoint is Endpoint.CHAT_COMPLETIONS:
            self._open = b"\n" + choice + b'"delta":{"content":'
            self._first_open = b"\n" + choice + b'"delta":{"role":"assistant","content":'
            text_end, nothing = b"}", b'"delta":{}'
        else:
            self._open = self._first_open = b"\n" + choice + b'"text":'
            text_end, nothing = b"", b'"text":""'
        self._text_close = text_end + b',"logprobs":null,"finish_reason":null' + self._close
        self._before_reason = choice + nothing + b',"logprobs":null,"finish_reason":'

    def tokens(self, attempt: int, first: int, texts: list[str]) -> bytes:
        """Return one event for each text, with the ids `<attempt>-<first>` and following. Token 1 carries the role."""
        if not texts:
            return b""
        name = b"id: %d-" % attempt
        opening, closing = self._open, self._text_close
        if len(texts) == 1:
            return b"".join(
                (name, b"%d" % first, self._first_open if first == 1 else opening, _encode(texts[0]), closing)
            )
        pieces: list[bytes] = []
        for number, text in enumerate(_encode_each(texts), first):
            pieces += (name, b"%d" % number, opening, text, closing)
        if first == 1:
            pieces[2] = self._first_open  # the opening of the first event
        return b"".join(pieces)

    def finish(self, finish_reason: str) -> bytes:
        """Return the event with the finish reason. It has no id: no token follows from which to resume."""
        return self._before_reason + orjson.dumps(finish_reason) + self._close

    def usage(self, input_tokens: int | None, output_tokens: int) -> bytes:
        """Return the event with the token counts, which a client requests with `include_usage`."""
        return self._envelope + b'],"usage":' + orjson.dumps(_usage(input_tokens, output_tokens)) + b"}\n\n"


def _encode(text: str) -> bytes:
    """Encode a text as a JSON string."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:  # a lone surrogate: too rare to check for in advance
        return orjson.dumps(encodable(text))


def _encode_each(texts: list[str]) -> list[bytes]:
    """Encode each of at least one text as a JSON string, with a single call of the encoder.

    In an indented array each item has a line of its own, and line breaks within an item are always escaped. One call
    for each text is slower, up to ten times for large batches.
    """
    try:
        lines = orjson.dumps(texts, option=orjson.OPT_INDENT_2)
    except orjson.JSONEncodeError:
        lines = orjson.dumps([encodable(text) for text in texts], option=orjson.OPT_INDENT_2)
    return lines[len(b"[\n  ") : -len(b"\n]")].split(b",\n  ")


def error_frame(error_type: ErrorType, message: str, request_id: str) -> bytes:
    """Return the event that precedes `DONE` in the stream of a request that was not completed."""
    shape = ERROR_RESPONSES[error_type]
    error = {
        "message": encodable(message),
        "type": shape.type,
        "code": shape.status,
        "error_type": error_type,
        "request_id": request_id,
    }
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def fold(
    endpoint: Endpoint,
    request_id: str,
    model: str,
    created: int,
    text: str,
    finish_reason: str,
    input_tokens: int | None,
    output_tokens: int,
) -> dict[str, Any]:
    """Return the body of a unary response: the whole token stream as one object."""
    text = encodable(text)
    choice: dict[str, Any] = {"index": 0}
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        kind = "chat.completion"
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        kind = "text_completion"
        choice["text"] = text
    return {
        "id": request_id,
        "object": kind,
        "created": created,
        "model": model,
        "choices": [choice | {"logprobs": None, "finish_reason": finish_reason}],
        "usage": _usage(input_tokens, output_tokens),
    }


def _usage(input_tokens: int | None, output_tokens: int) -> dict[str, int]:
    """Count the input as 0 tokens when the engine does not report it."""
    prompt = input_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output_tokens,
        "total_tokens": prompt + output_tokens,
    }
