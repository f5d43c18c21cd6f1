"""Read the one event of a forward: the whole answer, which is the body of the response.

The JSON of a forward's answer is written once, and then only passed on: an answer may hold thousands of numbers. The
answer of a call that counts tokens is written as a text of JSON, which tells it from the events of a message.
"""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.formats import chunk_events
from lifecycle.formats.produced import Produced
from lifecycle.types import FORWARDS, Event


class AnswerFormat:
    """Read one dict. Its `usage`, if it has one, is noted too."""

    takes_text = False
    is_one_event = True

    def __init__(self, endpoint: str, answered: bool) -> None:
        """`answered` is whether an earlier attempt has left the answer."""
        self._endpoint = endpoint
        self._answered = answered

    def read(self, event: object) -> Produced:
        """Return what to write for the answer. Raises TypeError for any other value, and for a second event."""
        if not isinstance(event, dict):
            shown = "None" if event is None else f"a value of type {type(event).__name__}"
            raise TypeError(f"the engine yielded {shown}; {self._wanted}")
        if self._answered:
            raise TypeError(f"the engine yielded a second event; {self._wanted}")
        encoded = self._encode(event)
        self._answered = True
        usage = event.get("usage")
        return Produced(encoded, has_content=True, usage=usage if isinstance(usage, dict) else None)

    def _encode(self, answer: dict[str, Any]) -> bytes:
        """Return an object of JSON, or a text with the object if who decodes and encodes it would change it."""
        if self._endpoint in FORWARDS:
            try:
                return orjson.dumps(answer)
            except TypeError:
                pass  # it may have integers beyond 64 bits, which orjson reads as floats
        return orjson.dumps(chunk_events.encode_object(answer).decode())

    @property
    def _wanted(self) -> str:
        return f"for the endpoint {self._endpoint} it must yield exactly one dict, the body of the answer"

    def is_opening(self, event: Event) -> bool:
        """Return False: the only event is the answer."""
        return False
