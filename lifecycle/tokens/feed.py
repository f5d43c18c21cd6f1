"""A request as one frontend sees it: what its inbox brings goes to the request's readers and to its monitor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lifecycle.tokens.history import End, Tokens
from lifecycle.types import RequestRecord

if TYPE_CHECKING:
    from lifecycle.tokens.reader import TokenReader


class Feed:
    """Fans items out; keeps no tokens itself. All methods are called from the event loop."""

    def __init__(self, rid: str, on_empty: Callable[[Feed], None]) -> None:
        self.rid = rid
        self.readers: tuple[TokenReader, ...] = ()
        self.number = 0  # of the last token seen
        self.started = False
        self._clock = asyncio.get_running_loop().time
        self.active_at = self._clock()  # of the last sign of life: start or token
        self.record: RequestRecord | None = None  # once terminal
        self.end: End | None = None  # once the token stream is closed
        self.on_tokens: Callable[[int, float], None] | None = None  # how many are new, and the wait for them
        self.on_terminal: Callable[[RequestRecord], None] | None = None
        self.on_started: Callable[[], None] | None = None
        self.on_requeued: Callable[[], None] | None = None
        self.attaching = asyncio.Lock()  # keeps the reader counts told to Redis in order
        self._on_empty = on_empty
        self._pins = 0

    @property
    def http_readers(self) -> int:
        return len(self.readers)

    def pin(self) -> None:
        """Keep the feed without readers: this frontend owns the request and monitors it, or still speaks of it."""
        self._pins += 1

    def unpin(self) -> None:
        self._pins -= 1
        self._release_if_empty()

    def add(self, reader: TokenReader) -> None:
        self.readers += (reader,)

    def remove(self, reader: TokenReader) -> None:
        self.readers = tuple(other for other in self.readers if other is not reader)
        self._release_if_empty()

    def _release_if_empty(self) -> None:
        if not self.readers and self._pins == 0:
            self._on_empty(self)

    def take_tokens(self, entry_id: str, texts: list[str]) -> None:
        attempt, _, number = entry_id.partition("-")
        last = int(number)
        if last <= self.number:
            return  # older than what is known: a repeated frame
        tokens = Tokens(int(attempt), last - len(texts) + 1, texts)
        now = self._clock()
        self.started = True
        new, self.number = last - self.number, last  # by number: frames overlap, or get lost
        if self.on_tokens is not None:
            self.on_tokens(new, now - self.active_at)
        self.active_at = now
        for reader in self.readers:
            reader.push(tokens)

    def take_started(self) -> None:
        self.started = True
        self.active_at = self._clock()
        if self.on_started is not None:
            self.on_started()

    def take_requeued(self) -> None:
        self.started = False
        if self.on_requeued is not None:
            self.on_requeued()

    def take_end(self, end: End) -> None:
        """The token stream is closed; the request itself may still wait for its worker's confirmation."""
        self.end = end
        for reader in self.readers:
            reader.push(end)

    def take_terminal(self, record: RequestRecord, end: End) -> None:
        if self.end is None:
            self.take_end(end)
        self.record = record
        if self.on_terminal is not None:
            self.on_terminal(record)

    def lose(self, error_type: str, message: str) -> None:
        """End every reader now, whatever Redis says: the state is lost or out of reach."""
        self.end = End("failed", error_type, message, "", self.number)
        for reader in self.readers:
            reader.abort(self.end)

    def take_event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "started":
            self.take_started()
        elif kind == "requeued":
            self.take_requeued()
        elif kind == "end":
            self.take_end(End.from_event(event))
        elif kind == "terminal":
            self.take_terminal(RequestRecord.from_hash(event["record"]), End.from_event(event["outcome"]))
