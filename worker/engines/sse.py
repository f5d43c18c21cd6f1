"""Parse server-sent events from a byte stream that may be split anywhere."""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The longest line, and the longest data of one event, that is accepted."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    """Raised when a line, or the data of one event, is longer than MAX_EVENT_BYTES."""


class ServerSentEvent(NamedTuple):
    """Hold one event. `name` is the value of its `event:` line, or empty."""

    data: bytes
    name: bytes = b""


class SseParser:
    """Split a byte stream into server-sent events, as the HTML standard defines them.

    Lines end in LF, CRLF or CR, and a byte order mark at the start is skipped. Comments and fields other than `data`
    and `event` are ignored, with one exception: some servers report a failure as `event: error` followed by nothing but
    a comment. That comment becomes the event's data.
    """

    __slots__ = ("_after_cr", "_comment", "_data", "_first", "_name", "_partial", "_size")

    def __init__(self) -> None:
        self._partial = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._name = b""
        self._comment = b""
        self._first = True  # the next line is the first one
        self._after_cr = False  # the last byte was a CR; an LF behind it belongs to the same line end

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that `chunk` completes, and keep the rest for the next call.

        Raise EventTooLong when a line or an event exceeds MAX_EVENT_BYTES.
        """
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        self._partial += chunk
        if b"\n" not in chunk:
            if len(self._partial) > MAX_EVENT_BYTES:
                raise EventTooLong
            return []
        *lines, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        events: list[ServerSentEvent] = []
        for line in lines:
            if self._first:
                self._first = False
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line:
                self._field(line)
            elif event := self._finish():
                events.append(event)
        return events

    def end(self) -> list[ServerSentEvent]:
        """Return the events of the last lines although the blank line that ends an event is missing."""
        return self.feed(b"\n\n\n")  # the first may belong to a CR

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """Return `chunk` with every line end as an LF."""
        if not chunk:
            return chunk
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value)
            if self._size > MAX_EVENT_BYTES:
                raise EventTooLong
            self._data.append(value)
        elif field == b"event":
            self._name = value
        elif not field:
            self._comment = value[:1000]

    def _finish(self) -> ServerSentEvent | None:
        data, name, comment = self._data, self._name, self._comment
        if not (data or name or comment):
            return None
        self._data, self._size, self._name, self._comment = [], 0, b"", b""
        if data:
            return ServerSentEvent(b"\n".join(data), name)
        return ServerSentEvent(comment, name) if name == b"error" else None
