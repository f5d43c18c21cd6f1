"""Hold a source back while the reader in its own process is behind by too many bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from lifecycle.encoding import Encodable
from lifecycle.store.results import Refusal, Start
from lifecycle.tokens.writer import TokenSink, TokenWriter

_EVENT_BYTES = 64  # that the smallest event counts as, so that many of them are bounded too


class HeldBackSink(TokenSink):
    """Take the events of a source that one reader of this process consumes, as long as there is one."""

    def __init__(self, writer: TokenWriter, rid: str, start: Start, on_refused: Callable[[Refusal], None]) -> None:
        """See TokenWriter.open."""
        super().__init__(writer, rid, start, on_refused)
        self._limit_bytes = writer.store.settings.reader_buffer_bytes
        self._unread: deque[int] = deque()  # the sizes of events that were put and not read, in order
        self._unread_bytes = 0
        self._has_reader = True

    @property
    def is_held_back(self) -> bool:
        """Return whether the source waits for the reader."""
        return self._unread_bytes >= self._limit_bytes

    def put(self, event: Encodable, size: int) -> bool:
        """Take one event of `size` bytes. Returns False when the source should await `drained()` before the next."""
        takes_more = super().put(event, size)
        if self._has_reader:
            size = max(size, _EVENT_BYTES)
            self._unread.append(size)
            self._unread_bytes += size
        return takes_more and not self.is_held_back

    async def drained(self) -> None:
        """Wait until the sink takes further events, and the reader is behind by less than the limit."""
        await super().drained()
        while self.is_held_back and not (self.closed or self._ending):
            await self._wait_for_progress()

    def note_read(self, count: int) -> None:
        """Note that the reader has consumed the next `count` events."""
        for _ in range(min(count, len(self._unread))):
            self._unread_bytes -= self._unread.popleft()
        self._notify()

    def stop_holding_back(self) -> None:
        """Let the source run on: its reader has gone."""
        self._has_reader = False
        self._unread.clear()
        self._unread_bytes = 0
        self._notify()


class HeldBackWriter(TokenWriter):
    """Flush the sinks of what runs in one frontend's process."""

    def open(self, rid: str, start: Start, on_refused: Callable[[Refusal], None]) -> HeldBackSink:
        """Return a sink for one attempt, as TokenWriter.open does."""
        return HeldBackSink(self, rid, start, on_refused)
