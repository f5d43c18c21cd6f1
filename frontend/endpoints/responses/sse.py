"""Encode the events of a response as server-sent events, in OpenAI's format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from frontend.endpoints.responses.error import response_error
from frontend.endpoints.responses.fold import ResponseFold
from lifecycle.encoding import encode_json
from lifecycle.formats.response_object import ENDINGS, OPENINGS
from lifecycle.tokens.items import End
from lifecycle.types import Event, Status


class _Held(NamedTuple):
    """Hold the event back that ends the response, until the request has ended."""

    attempt: int
    number: int
    event: dict[str, Any]


class ResponseEncoder:
    """Encode the events of one request for one client, in order; encoding one again gives the same bytes.

    `sequence_number` counts all stored events, whatever their attempt. The event that ends the response is held back
    until the end of the request says that it has completed: any other end is told as `response.failed`, and a cancel by
    the end of the stream alone. A request that completes without such an event gets one, made of the events before.
    """

    def __init__(self, created_at: float, fold: ResponseFold, number: int = 0) -> None:
        """`fold` has the events that the client has, the last of which has the given number."""
        self._created_at = int(created_at)
        self._fold = fold
        self._number = number  # of the last event in the fold
        self._held: _Held | None = None
        self._is_over = bool(fold.ending)  # the client has the event that ends the response

    def tokens(self, attempt: int, first: int, events: Sequence[Event]) -> bytes:
        """Return the server-sent events; none for the event that ends the response and what may come behind it."""
        pieces: list[bytes] = []
        for number, event in enumerate(events, first):
            if not isinstance(event, dict):
                continue  # a text, which no worker writes into a response
            kind = event.get("type", "")
            if kind in OPENINGS:
                event = self._with_created_at(event)
            if number > self._number:
                self._fold.add((event,))
                self._number = number
            if kind in ENDINGS:
                self._held = self._held or _Held(attempt, number, event)
            elif self._held is None and not self._is_over:
                pieces += (b"id: %d-%d\n" % (attempt, number), _frame(event, number))
        return b"".join(pieces)

    def _with_created_at(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an opening with the time of the admission, which is not known yet when the first is written."""
        response = event.get("response")
        return (
            event | {"response": response | {"created_at": self._created_at}} if isinstance(response, dict) else event
        )

    @property
    def is_holding(self) -> bool:
        """Return whether the event that ends the response is held back."""
        return self._held is not None

    def release(self) -> bytes:
        """Return nothing: only the end of the request decides about the event that is held back."""
        return b""

    def ending(self, end: End) -> bytes:
        """Return the event that ends the response; nothing for a cancelled one, and for a client that has it."""
        if self._is_over or end.status == Status.CANCELLED:
            return b""
        number = self._held.number if self._held else self._number + 1
        if end.status != Status.COMPLETED:
            response = self._fold.response("failed", error=response_error(end.error_type, end.message, end.detail))
            return _frame({"type": "response.failed", "response": response}, number)
        response = self._fold.completed(end)
        if self._held is not None:
            return b"id: %d-%d\n" % self._held[:2] + _frame(self._held.event | {"response": response}, number)
        return _frame({"type": f"response.{response['status']}", "response": response}, number)


def _frame(event: dict[str, Any], number: int) -> bytes:
    """Return the lines of an event behind its id. A made event has no id: there is nothing to resume behind it."""
    return b'event: %b\ndata: %b,"sequence_number":%d}\n\n' % (
        event["type"].encode(),
        encode_json(event)[:-1],
        number - 1,
    )
