"""Fan out what an inbox delivers for one request: to its readers, and to an observer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.sizes import memory_bytes
from lifecycle.types import Event, RequestRecord


class FeedReader(Protocol):
    """Describe what a feed needs of a reader. No method may raise or block."""

    def push(self, item: Tokens | End) -> None:
        """Receive the next item."""

    def abort(self, end: End) -> None:
        """End with `end` now, and drop what has not been delivered."""

    def mark_stale(self) -> None:
        """Read the request's record: a push may have been lost, or Redis may have lost data."""

    def reread(self) -> None:
        """Compare what was delivered with the stream: an attempt of which tokens came was started anew."""


class FeedObserver(Protocol):
    """Describe what follows the progress of a request without reading its events. No method may block."""

    def on_tokens(self, count: int, gap_secs: float) -> None:
        """Notice `count` new tokens, `gap_secs` after the last sign of life."""

    def on_started(self) -> None:
        """Notice that a worker has started the request."""

    def on_requeued(self) -> None:
        """Notice that the request waits for another worker."""

    def on_terminal(self, record: RequestRecord) -> None:
        """Notice that the request has ended; `record` is terminal."""


class RequestFeed:
    """Forward pushed items of one request. It stores no tokens. All methods are called from the event loop."""

    def __init__(self, rid: str, on_empty: Callable[[RequestFeed], None]) -> None:
        """`on_empty` is called when the feed has neither readers nor pins."""
        self.rid = rid
        self.readers: tuple[FeedReader, ...] = ()
        self.observer: FeedObserver | None = None
        self.number = 0  # of the last token seen
        self.started = False  # a worker is running the request
        self.loop = asyncio.get_running_loop()  # for who follows it, too: to find it is a system call in Python 3.11
        self._clock = self.loop.time
        self.active_at = self._clock()  # loop time of the last start or token
        self.record: RequestRecord | None = None  # set once the request is terminal
        self.end: End | None = None  # set once the token stream is closed
        self.starts: dict[int, str] = {}  # by attempt: the nonce of the first start of which tokens came
        self.lost_start = 0  # the last attempt that was started anew after tokens of it had come; 0 for none
        self._nonce = ""  # of the start of the last tokens
        self.attach_lock = asyncio.Lock()  # keeps the reader counts that are sent to Redis in order
        self._on_empty = on_empty
        self._pins = 0
        self._measured: tuple[Tokens | None, int] = (None, 0)

    @property
    def http_readers(self) -> int:
        return len(self.readers)

    def pin(self) -> None:
        """Keep the feed while it has no readers: for a request's owner, or while its reader count is being written."""
        self._pins += 1

    def unpin(self) -> None:
        """Undo one `pin()`."""
        self._pins -= 1
        self._release_if_empty()

    def add(self, reader: FeedReader) -> None:
        """Push further items to this reader too."""
        self.readers += (reader,)

    def remove(self, reader: FeedReader) -> None:
        """Push nothing more to this reader. Removing it again changes nothing."""
        self.readers = tuple(other for other in self.readers if other is not reader)
        self._release_if_empty()

    def _release_if_empty(self) -> None:
        if not self.readers and self._pins == 0:
            self._on_empty(self)

    def take_tokens(self, entry_id: str, events: Sequence[Event], nonce: str = "") -> None:
        """Forward consecutive tokens; `entry_id` is `<attempt>-<number of the last one>`. A repetition is ignored.

        The attempt is 0 for the first events of an answer that come with the admission. `nonce` is that of the
        attempt's start.
        """
        text, _, number = entry_id.partition("-")
        attempt, last = int(text), int(number)
        before = last - len(events)
        if nonce != self._nonce:
            self._nonce = nonce
            self._compare_start(attempt, nonce, before)
        if last <= self.number:
            return
        tokens = Tokens(attempt, before + 1, events, nonce)
        self._note_tokens(attempt, last)
        for reader in self.readers:
            reader.push(tokens)

    def take_unsent(self, entry_id: str) -> None:
        """Let the readers read the stream: it has an entry that is too large to be pushed."""
        attempt, last = map(int, entry_id.split("-"))
        if last > self.number:
            self._note_tokens(attempt, last)
            for reader in self.readers:
                reader.mark_stale()

    def _compare_start(self, attempt: int, nonce: str, base: int) -> None:
        """Note the start of tokens, and let readers compare what they have if Redis has lost an earlier start.

        The tokens behind `base` are new then, though tokens with their numbers have come before.
        """
        first = self.starts.setdefault(attempt, nonce)
        later = [other for other in self.starts if other > attempt]
        if nonce and (later or first not in ("", nonce)):
            self.number = min(self.number, base)
            self.note_lost_start(max([attempt, *later]))

    def note_lost_start(self, attempt: int) -> None:
        """Note that this attempt was started anew after tokens of it had come, so that its numbers are ambiguous."""
        if attempt > self.lost_start:
            self.lost_start = attempt
            for reader in self.readers:
                reader.reread()

    def _note_tokens(self, attempt: int, last: int) -> None:
        now = self._clock()
        if attempt and not self.started:  # no message of the start has come, or a record was read that is older
            self.started = True
            if self.observer is not None:
                self.observer.on_started()
        new, self.number = last - self.number, last  # counted by number: frames may overlap or get lost
        if self.observer is not None:
            self.observer.on_tokens(new, now - self.active_at)
        self.active_at = now

    def memory_of(self, tokens: Tokens) -> int:
        """Return the memory that the tokens' events take. All readers that hold the same push share one measurement."""
        if self._measured[0] is not tokens:
            self._measured = (tokens, memory_bytes(tokens.events))
        return self._measured[1]

    def take_started(self) -> None:
        """Note that a worker has started the request."""
        self.started = True
        self.active_at = self._clock()
        if self.observer is not None:
            self.observer.on_started()

    def take_requeued(self) -> None:
        """Note that the request waits for another worker."""
        self.started = False
        if self.observer is not None:
            self.observer.on_requeued()

    def take_end(self, end: End) -> None:
        """Forward the end of the token stream. The request may still wait for its worker to confirm a cancel."""
        self.end = end
        self._measured = (None, 0)
        for reader in self.readers:
            reader.push(end)

    def take_terminal(self, record: RequestRecord, end: End) -> None:
        """Note the terminal record, and forward the end if it has not been forwarded."""
        if self.end is None:
            self.take_end(end)
        self.record = record
        if self.observer is not None:
            self.observer.on_terminal(record)

    def abort(self, error_type: str, message: str) -> None:
        """End every reader now with an error: the request's state is lost or out of reach."""
        self.end = End("failed", error_type, message, "", self.number)
        for reader in self.readers:
            reader.abort(self.end)

    def take_event(self, event: dict[str, Any]) -> None:
        """Forward a pushed event; unknown types are ignored. Raises KeyError or ValueError when it is malformed."""
        kind = event["type"]
        if kind == "started":
            attempt, nonce = event.get("attempt", 0), event.get("nonce", "")
            if self.starts.get(attempt, nonce) != nonce:
                self._compare_start(attempt, nonce, event["base"])
            self.take_started()
        elif kind == "terminal":
            self.take_terminal(RequestRecord.from_hash(event["record"]), End.from_event(event["outcome"]))
        elif kind == "requeued":
            self.take_requeued()
        elif kind == "unsent":
            self.take_unsent(event["id"])
        elif kind == "end":
            self.take_end(End.from_event(event))
