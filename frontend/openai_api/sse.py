"""Encode events as server-sent events.

This is the hot path: the parts that are the same in all events of a request are encoded once; only token texts and
numbers are encoded for each event, and of a structured event its own fields. Every event has one `data:` line and no
`event:` line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from frontend.openai_api.choices import ChoiceProgress, index_of
from lifecycle.encoding import encodable_value
from lifecycle.fastapi.errors import encodable
from lifecycle.types import Endpoint, Event

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n\n"

_ENVELOPE = frozenset({"id", "object", "created", "model"})  # fields that an event does not have
_CHUNK_OBJECTS = {
    Endpoint.CHAT_COMPLETIONS: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}


class ChunkEncoder:
    """Encode the events of one request for one client, in order; encoding one again gives the same bytes.

    A text is a token of choice 0. An object is a chunk without its envelope, whose fields pass unchanged. The first
    event of each chat choice carries the role.
    """

    __slots__ = (
        "_before_reason",
        "_chat",
        "_close",
        "_envelope",
        "_first_events",
        "_first_open",
        "_head",
        "_include_usage",
        "_open",
        "_progress",
        "_text_close",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        request_id: str,
        model: str,
        created: int,
        include_usage: bool,
        progress: ChoiceProgress | None = None,
    ) -> None:
        """`progress` is that of the events that the client has; None when it begins at the first event."""
        self._progress = progress or ChoiceProgress()
        self._first_events = self._progress.first_events
        self._chat = endpoint is Endpoint.CHAT_COMPLETIONS
        self._include_usage = include_usage
        chunk = {"id": request_id, "object": _CHUNK_OBJECTS[endpoint], "created": created, "model": model}
        self._head = b"data: " + orjson.dumps(chunk)[:-1] + b","
        self._envelope = self._head + b'"choices":['
        self._close = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"

        choice = self._envelope + b'{"index":0,'
        if self._chat:
            self._open = b"\n" + choice + b'"delta":{"content":'
            self._first_open = b"\n" + choice + b'"delta":{"role":"assistant","content":'
            text_end, nothing = b"}", b'"delta":{}'
        else:
            self._open = self._first_open = b"\n" + choice + b'"text":'
            text_end, nothing = b"", b'"text":""'
        self._text_close = text_end + b',"logprobs":null,"finish_reason":null' + self._close
        self._before_reason = choice + nothing + b',"logprobs":null,"finish_reason":'

    def tokens(self, attempt: int, first: int, events: list[Event]) -> bytes:
        """Return one server-sent event for each event, with the ids `<attempt>-<first>` and following."""
        if not events:
            return b""
        name = b"id: %d-" % attempt
        pieces: list[bytes] = []
        if dict in map(type, events):
            for number, event in enumerate(events, first):
                encoded = self._text(number, event) if isinstance(event, str) else self._chunk(number, event)
                pieces += (name, b"%d" % number, encoded)
            return b"".join(pieces)
        if len(events) == 1:
            return b"".join((name, b"%d" % first, self._text(first, events[0])))
        opening, closing = self._open, self._text_close
        for number, encoded in enumerate(_encode_each(cast(list[str], events)), first):
            pieces += (name, b"%d" % number, opening, encoded, closing)
        if self._first_events.setdefault(0, first) == first:
            pieces[2] = self._first_open  # the opening of the first event
        return b"".join(pieces)

    def _text(self, number: int, text: Event) -> bytes:
        opening = self._first_open if self._first_events.setdefault(0, number) == number else self._open
        return opening + _encode(text) + self._text_close

    def _chunk(self, number: int, event: dict[str, Any]) -> bytes:
        self._progress.note(number, [event])
        choices = event.get("choices")
        shown: dict[str, Any] = {
            "choices": [self._with_role(number, choice) for choice in choices] if isinstance(choices, list) else []
        }
        shown |= {name: value for name, value in event.items() if name not in _ENVELOPE and name != "choices"}
        if self._include_usage:
            shown.setdefault("usage", None)
        return b"\n" + self._head + _encode(shown)[1:] + b"\n\n"

    def _with_role(self, number: int, choice: Any) -> Any:
        """Return the choice with the role, if this is its first event and the engine has not sent the role."""
        if not self._chat or not isinstance(choice, dict) or self._first_events.get(index_of(choice)) != number:
            return choice
        delta = choice.get("delta")
        if delta is None:
            delta = {}
        if not isinstance(delta, dict) or delta.get("role") is not None:
            return choice
        return choice | {"delta": {"role": "assistant"} | {name: delta[name] for name in delta if name != "role"}}

    def finish(self, finish_reason: str) -> bytes:
        """Return the event with the finish reason of choice 0; nothing if the engine has sent one.

        It has no id: no token follows from which to resume.
        """
        if self._progress.is_finished:
            return b""
        return self._before_reason + orjson.dumps(finish_reason) + self._close

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """Return the event with the usage, which a client requests with `include_usage`."""
        return self._envelope + b'],"usage":' + _encode(usage) + b"}\n\n"


def _encode(value: Any) -> bytes:
    """Encode a value as JSON."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # a lone surrogate: too rare to check for in advance
        return orjson.dumps(encodable(value) if isinstance(value, str) else encodable_value(value))


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
