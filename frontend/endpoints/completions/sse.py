"""Encode events as server-sent events.

This is the hot path: the parts that are the same in all events of a request are encoded once; only token texts and
numbers are encoded for each event, and of a structured event its own fields. Every event has one `data:` line and no
`event:` line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson

from frontend.endpoints.completions.choices import ChoiceProgress, choices_of, index_of
from frontend.endpoints.completions.fold import usage_of
from lifecycle.encoding import encodable, encode_json
from lifecycle.fastapi.errors import error_frame
from lifecycle.fastapi.json_events import DONE
from lifecycle.formats.chunks import ENVELOPE, is_usage_rest
from lifecycle.tokens.items import End
from lifecycle.types import Endpoint, ErrorType, Event, Status

_CHUNK_OBJECTS = {
    Endpoint.CHAT_COMPLETIONS: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}
# Global names: looking a member up in its enum is slow.
_CHAT_COMPLETIONS, _COMPLETED = Endpoint.CHAT_COMPLETIONS, Status.COMPLETED


class _Held(NamedTuple):
    """Hold an event back that may be the last one of the stream."""

    attempt: int
    number: int
    shown: dict[str, Any]  # the chunk without its envelope


class ChunkEncoder:
    """Encode the events of one request for one client, in order; encoding one again gives the same bytes.

    A text is a token of choice 0. An object is a chunk without its envelope, whose fields pass unchanged. The first
    event of each chat choice carries the role. A text has the fields that the engine repeats, see REPEATED_FIELDS.

    What the chunk with the usage holds beside it goes into the usage event of a client that requests that. For other
    clients the event with the last finish reason is held back until the next event or the end, and gets these fields.
    """

    __slots__ = (
        "_before_reason",
        "_chat",
        "_envelope",
        "_first_events",
        "_first_open",
        "_head",
        "_held",
        "_include_usage",
        "_last",
        "_open",
        "_progress",
        "_repeated",
        "_request_id",
        "_rest_is_late",
        "_text_close",
        "_text_end",
        "_text_since",
        "is_holding",
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
        self._chat = endpoint is _CHAT_COMPLETIONS
        self._include_usage = include_usage
        self._request_id = request_id
        chunk = {"id": request_id, "object": _CHUNK_OBJECTS[endpoint], "created": created, "model": model}
        self._head = b"data: " + orjson.dumps(chunk)[:-1] + b","
        self._envelope = self._head + b'"choices":['
        # By number. One is written before the event with the next number, and forgotten in the batch after that.
        self._held: dict[int, _Held] = {}
        self._last = 0  # the number of the last event, if one is held
        self.is_holding = False  # that event is held back at the moment
        self._rest_is_late = False  # no event was held when the fields beside the usage came

        choice = self._envelope + b'{"index":0,'
        if self._chat:
            self._open = b"\n" + choice + b'"delta":{"content":'
            self._first_open = b"\n" + choice + b'"delta":{"role":"assistant","content":'
            text_end, nothing = b"}", b'"delta":{}'
        else:
            self._open = self._first_open = b"\n" + choice + b'"text":'
            text_end, nothing = b"", b'"text":""'
        self._text_end = text_end + b',"logprobs":null,"finish_reason":null'
        self._repeated: dict[str, str] | None = None  # the fields in `_text_close`
        self._learn_repeated()
        self._before_reason = choice + nothing + b',"logprobs":null,"finish_reason":'

    def tokens(self, attempt: int, first: int, events: Sequence[Event]) -> bytes:
        """Return one server-sent event for each event, with the ids `<attempt>-<first>` and following."""
        if not events:
            return b""
        if self._held or dict in map(type, events):
            return self._mixed(attempt, first, events)
        name = b"id: %d-" % attempt
        if len(events) == 1:
            return b"".join((name, b"%d" % first, self._text(first, events[0])))
        pieces: list[bytes] = []
        opening, closing = self._open, self._text_close_at(first)
        for number, encoded in enumerate(_encode_each(cast(list[str], [*events])), first):
            pieces += (name, b"%d" % number, opening, encoded, closing)
        if self._first_events.setdefault(0, first) == first:
            pieces[2] = self._first_open  # the opening of the first event
        return b"".join(pieces)

    def _text(self, number: int, text: Event) -> bytes:
        opening = self._first_open if self._first_events.setdefault(0, number) == number else self._open
        closing = self._text_close if number >= self._text_since else self._text_close_at(number)
        try:
            return opening + orjson.dumps(text) + closing
        except orjson.JSONEncodeError:
            return opening + encode_json(text) + closing

    def _text_close_at(self, number: int) -> bytes:
        """Return what follows the text of the event `number`."""
        if number >= self._text_since:
            return self._text_close
        return self._text_end + self._close(self._progress.repeated_at(number))

    def _learn_repeated(self) -> None:
        """Encode what follows the texts from now on, for the most recent fields that the engine repeats."""
        self._text_since, fields = self._progress.repeated_since
        if fields is not self._repeated:
            self._repeated, self._text_close = fields, self._text_end + self._close(fields)

    def _note(self, number: int, event: Event) -> None:
        self._progress.note(number, [event])
        self._learn_repeated()

    def _close(self, fields: Mapping[str, Any]) -> bytes:
        """Return the end of an event with one choice and with these fields beside it."""
        beside = b"," + encode_json(fields)[1:-1] if fields else b""
        return b"}]" + beside + (b',"usage":null}\n\n' if self._include_usage else b"}\n\n")

    def _mixed(self, attempt: int, first: int, events: Sequence[Event]) -> bytes:
        """Return the server-sent events for texts and objects, without those that are held back."""
        if self._held:
            self._held = {number: held for number, held in self._held.items() if number >= first - 1}
        self._last = first + len(events) - 1
        pieces: list[bytes] = []
        name, opening = b"id: %d-" % attempt, b"\n" + self._head
        closing = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        for number, event in enumerate(events, first):
            if not self._held and isinstance(event, dict) and self._is_plain(number, event):
                pieces += (name, b"%d" % number, opening, encode_json(event)[1:-1], closing)
                continue
            before = self._held.get(number - 1)
            if isinstance(event, dict) and is_usage_rest(event):
                pieces.append(self._take_rest(attempt, number, event, before))
                continue
            if before is not None:
                pieces.append(self._encoded(before))
            if isinstance(event, str):
                pieces += (b"id: %d-%d" % (attempt, number), self._text(number, event))
                continue
            chunk = _Held(attempt, number, self._shown(number, event))
            if not self._include_usage and self._progress.is_complete and _finishes(event):
                self._held[number] = chunk
            else:
                pieces.append(self._encoded(chunk))
        self.is_holding = self._last in self._held
        return b"".join(pieces)

    def _is_plain(self, number: int, event: dict[str, Any]) -> bool:
        """Return whether an object is shown as it is, and says nothing about later events: this is the hot path.

        It has one choice and nothing beside it; the choice has begun before and does not end.
        """
        choices = event.get("choices")
        if len(event) != 1 or type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            return False
        begun = self._first_events.get(index_of(choices[0]))
        return begun is not None and begun < number and choices[0].get("finish_reason") is None

    def _take_rest(self, attempt: int, number: int, event: dict[str, Any], before: _Held | None) -> bytes:
        """Take the fields beside the usage for the event that is held, else for the end of the stream.

        One number has no event of its own then: that of the held event, which gets this one's, or else this one's.
        Return a comment that says so, for clients that check the numbers. It has no empty line, see KEEPALIVE.
        """
        self._note(number, event)
        self._rest_is_late = before is None
        if before is None:
            return b": no event %d-%d\n" % (attempt, number)
        self._held[number] = before._replace(number=number, shown=before.shown | self._progress.usage_rest)
        return b": no event %d-%d\n" % (before.attempt, before.number)

    def _encoded(self, chunk: _Held) -> bytes:
        return b"id: %d-%d\n" % chunk[:2] + self._head + encode_json(chunk.shown)[1:] + b"\n\n"

    def held(self) -> bytes:
        """Return the event that is held back at the moment; nothing if there is none."""
        chunk = self._held.get(self._last)
        return b"" if chunk is None else self._encoded(chunk)

    def release(self) -> bytes:
        """Return the event that is held back, and hold it no longer; nothing if there is none."""
        released = self.held()
        self._held.clear()
        self.is_holding = False
        return released

    def _shown(self, number: int, event: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of an object as the client gets them."""
        self._note(number, event)
        choices = event.get("choices")
        shown: dict[str, Any] = {
            "choices": [self._with_role(number, choice) for choice in choices] if isinstance(choices, list) else []
        }
        shown |= {name: value for name, value in event.items() if name not in ENVELOPE and name != "choices"}
        if self._include_usage:
            shown.setdefault("usage", None)
        return shown

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

    def ending(self, end: End) -> bytes:
        """Return what ends the stream: the finish reason and the usage, or the error; and `[DONE]`."""
        if end.status == _COMPLETED:
            usage = self.usage(usage_of(end)) if self._include_usage else b""
            return self.finish(end.finish_reason or "stop") + usage + DONE
        error = error_frame(ErrorType(end.error_type), end.message, self._request_id, end.detail)
        return self.held() + error + DONE

    def finish(self, finish_reason: str) -> bytes:
        """Return the event that is held back, and one with the finish reason of choice 0 if the engine has sent none.

        The latter has no id: no token follows from which to resume.
        """
        held, progress = self.held(), self._progress
        rest = {} if self._include_usage or held else progress.usage_rest
        if not progress.is_finished:
            fields = progress.repeated | rest
            before_reason = self._before_reason
            if self._chat and 0 not in self._first_events:  # the answer is empty: this is the choice's first event
                before_reason = self._first_open[1:] + b'""},"logprobs":null,"finish_reason":'
            return held + before_reason + orjson.dumps(finish_reason) + self._close(fields)
        if rest and self._rest_is_late:
            return self._head + encode_json({"choices": []} | rest)[1:] + b"\n\n"
        return held

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """Return the event with the usage, which a client requests with `include_usage`."""
        shown = {"choices": [], "usage": usage} | self._progress.repeated | self._progress.usage_rest
        return self._head + encode_json(shown)[1:] + b"\n\n"


def _finishes(event: dict[str, Any]) -> bool:
    """Return whether an object has a finish reason."""
    return any(choice.get("finish_reason") is not None for choice in choices_of(event))


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
