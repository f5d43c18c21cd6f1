"""Define the items of a token stream."""

from __future__ import annotations

from typing import NamedTuple


class Tokens(NamedTuple):
    """Hold consecutive tokens of one attempt, numbered `first`, `first + 1`, …"""

    attempt: int
    first: int
    texts: list[str]

    @property
    def last(self) -> int:
        return self.first + len(self.texts) - 1


class Opened(NamedTuple):
    """Mark the beginning of an attempt. Earlier attempts have left `base` tokens in the stream."""

    attempt: int
    base: int


class End(NamedTuple):
    """Mark the end of the token stream; `last` is the number of its last token."""

    status: str
    error_type: str
    message: str
    finish_reason: str
    last: int
    input_tokens: int | None = None

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
        )
