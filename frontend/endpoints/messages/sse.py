"""Encode the events of the Messages API as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frontend.endpoints.endpoint import Answer
from frontend.endpoints.messages.errors import ended_badly
from frontend.endpoints.messages.progress import MessageProgress
from lifecycle.encoding import encode_json
from lifecycle.tokens.items import End
from lifecycle.types import Event, Status


class MessageEncoder:
    """Encode the events of one request for one client, in order; encoding one again gives the same bytes.

    Each has an `event:` line with its type. `message_stop` is held back until the request has completed; a request that
    ends otherwise has an `error` event instead. The answer of a call that counts tokens is JSON already, and no event
    with a type.
    """

    is_holding = False  # as far as the stream is concerned: silence does not release `message_stop`

    def __init__(self, answer: Answer, progress: MessageProgress | None = None) -> None:
        """`progress` is that of the events that the client has; None when it begins at the first event."""
        self._answer = answer
        self._progress = progress or MessageProgress()

    def tokens(self, attempt: int, first: int, events: Sequence[Event]) -> bytes:
        """Return one server-sent event for each event but `message_stop`."""
        pieces: list[bytes] = []
        for number, event in enumerate(events, first):
            self._progress.note(attempt, number, event)
            if isinstance(event, str):
                pieces.append(b"id: %d-%d\ndata: %b\n\n" % (attempt, number, event.encode()))
            elif event.get("type") != "message_stop":
                pieces += (b"id: %d-%d\n" % (attempt, number), _frame(event))
        return b"".join(pieces)

    def release(self) -> bytes:
        """Return nothing: only the end of the request releases what is held back."""
        return b""

    def ending(self, end: End) -> bytes:
        """Return what ends the stream: `message_stop`, with what an engine that was stopped has left out; or an error.

        What the engine has not sent has no id: no event follows from which to resume.
        """
        answer, stop = self._answer, self._progress.stop
        if end.status != Status.COMPLETED:
            return _frame(ended_badly(end, answer.id))
        if stop is not None:
            position, event = stop
            return b"id: %d-%d\n" % position + _frame(event)
        return b"".join(map(_frame, self._progress.missing_end(answer.id, answer.model, end)))


def _frame(event: dict[str, Any]) -> bytes:
    kind = event.get("type")
    name = b"event: %b\n" % kind.encode() if isinstance(kind, str) and kind.isascii() and kind.isprintable() else b""
    return name + b"data: " + encode_json(event) + b"\n\n"
