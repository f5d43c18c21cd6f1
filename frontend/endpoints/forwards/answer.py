"""Write the answer of a forward, whose event is a text of JSON: as a server-sent event, or as a response's body."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import orjson

from lifecycle.fastapi.json_events import JsonEventEncoder
from lifecycle.tokens.items import End
from lifecycle.types import Event


class AnswerEncoder(JsonEventEncoder):
    """Encode the answer for a client that reads the request's stream."""

    def tokens(self, attempt: int, first: int, events: Sequence[Any]) -> bytes:
        """Return one server-sent event for each event, which is JSON already; a forward has one."""
        return b"".join(
            b"id: %d-%d\ndata: %b\n\n" % (attempt, number, answer.encode())
            for number, answer in enumerate(cast(list[str], events), first)
        )


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
