"""Write the answer of a forward: as a server-sent event, or as a response's body.

Its event is the answer, or a text of the answer's JSON. What is decoded and encoded again has the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from lifecycle.encoding import encode_json
from lifecycle.fastapi.json_events import JsonEventEncoder
from lifecycle.tokens.encoded_events import EncodedEvents
from lifecycle.tokens.items import End
from lifecycle.types import Event


class AnswerEncoder(JsonEventEncoder):
    """Encode the answer for a client that reads the request's stream."""

    def tokens(self, attempt: int, first: int, events: Sequence[Any]) -> bytes:
        """Return one server-sent event for each event; a forward has one."""
        return b"".join(
            b"id: %d-%d\ndata: %b\n\n" % (attempt, number, answer)
            for number, answer in enumerate(_answers(events), first)
        )


class AnswerFold:
    """Keep the answer as it is."""

    def __init__(self) -> None:
        self._answer = b"{}"

    def add(self, events: Iterable[Event]) -> None:
        """Take the answer."""
        for answer in _answers(events):
            self._answer = answer

    def body(self, request_id: str, model: str, created: int, end: End) -> orjson.Fragment:
        """Return the answer, which is the body of the response. It has no field of ours."""
        return orjson.Fragment(self._answer)


def _answers(events: Iterable[Event]) -> Sequence[bytes]:
    """Return the JSON of each answer."""
    answer = events.only_object if isinstance(events, EncodedEvents) else None
    if answer is not None:
        return (answer,)
    return [event.encode() if isinstance(event, str) else encode_json(event) for event in events]
