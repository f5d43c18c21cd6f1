"""Write the answer of a forward, whose event is a text of JSON: as a server-sent event, or as a response's body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import orjson

from frontend.endpoints.completions.sse import DONE
from lifecycle.fastapi.errors import error_frame
from lifecycle.tokens.items import End
from lifecycle.types import ErrorType, Event, Status


class AnswerEncoder:
    """Encode the answer for a client that reads the request's stream."""

    is_holding = False

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def tokens(self, attempt: int, first: int, events: list[Event]) -> bytes:
        """Return one server-sent event for each event; a forward has one."""
        return b"".join(
            b"id: %d-%d\ndata: %b\n\n" % (attempt, number, answer.encode())
            for number, answer in enumerate(cast(list[str], events), first)
        )

    def release(self) -> bytes:
        """Return nothing: no event is held back."""
        return b""

    def ending(self, end: End) -> bytes:
        """Return what ends the stream: the error, if the request failed, and `[DONE]`."""
        if end.status == Status.COMPLETED:
            return DONE
        return error_frame(ErrorType(end.error_type), end.message, self._request_id, end.detail) + DONE


class AnswerFold:
    """Keep the answer as it is."""

    def __init__(self) -> None:
        self._answer = "{}"

    def add(self, events: Iterable[Event]) -> None:
        """Take the answer."""
        for event in events:
            self._answer = cast(str, event)

    def body(self, request_id: str, model: str, created: int, end: End) -> orjson.Fragment:
        """Return the answer, which is the body of the response. It has no field of ours."""
        return orjson.Fragment(self._answer)
