"""Define the items of a token stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from lifecycle.types import ErrorDetail, Event, reported_tokens


class Tokens(NamedTuple):
    """Hold consecutive tokens of one attempt, numbered `first`, `first + 1`, …"""

    attempt: int
    first: int
    events: Sequence[Event]
    nonce: str = ""  # of the attempt's start; empty when it is not known

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1


class Opened(NamedTuple):
    """Mark the beginning of an attempt. Earlier attempts have left `base` tokens in the stream."""

    attempt: int
    base: int
    nonce: str = ""  # of this start; empty when it is not known


class End(NamedTuple):
    """Mark the end of the token stream; `last` is the number of its last token."""

    status: str
    error_type: str
    message: str
    finish_reason: str
    last: int
    input_tokens: int | None = None
    usage: dict[str, Any] | None = None  # as the engine reported it
    detail: ErrorDetail | None = None  # of an engine's or upstream's own error

    @property
    def output_tokens(self) -> int:
        """Return the number of generated tokens that the engine reported, else the number of events."""
        reported = reported_tokens(self.usage, "completion_tokens")
        return self.last if reported is None else reported

    @classmethod
    def from_event(cls, event: dict[str, object]) -> End:
        """Build from an event as the stream and the inboxes carry it. Raises KeyError or ValueError."""
        return cls(
            str(event["status"]),
            str(event["error_type"]),
            str(event["message"]),
            str(event["finish_reason"]),
            int(str(event["last"])),
            int(str(event["input_tokens"])) if event.get("input_tokens") else None,
            # Both are JSON inside a string, because Lua's JSON library does not preserve every value.
            orjson.loads(str(event["usage"])) if event.get("usage") else None,
            ErrorDetail.from_json(str(event["detail"])) if event.get("detail") else None,
        )
