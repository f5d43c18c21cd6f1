"""Reading server-sent events from a byte stream that is cut anywhere."""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT_BYTES = 1024 * 1024


class EventTooLong(Exception):
    """Raised when a line, or the data of one event, is longer than MAX_EVENT_BYTES."""


class Event(NamedTuple):
    """One event. `name` is empty unless an `event:` line gave one."""

    data: bytes
    name: bytes = b""


class EventParser:
    """Feed it what the socket gave; it returns the events that became complete, and keeps the rest.

    Lines end in LF or CRLF. Comments and fields other than `data` and `event` are passed over, with one exception:
    some servers report a failure as `event: error` with nothing but a comment behind it. That comment becomes the
    event's data.
    """

    __slots__ = ("_comment", "_data", "_name", "_partial", "_size")

    def __init__(self) -> None:
        self._partial = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._name = b""
        self._comment = b""

    def feed(self, chunk: bytes) -> list[Event]:
        self._partial += chunk
        if b"\n" not in chunk:
            if len(self._partial) > MAX_EVENT_BYTES:
                raise EventTooLong
            return []
        *lines, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        events: list[Event] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line:
                self._field(line)
            elif event := self._finish():
                events.append(event)
        return events

    def end(self) -> list[Event]:
        """What the last lines say although the blank line behind them is missing."""
        return self.feed(b"\n\n")

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

    def _finish(self) -> Event | None:
        data, name, comment = self._data, self._name, self._comment
        if not (data or name or comment):
            return None
        self._data, self._size, self._name, self._comment = [], 0, b"", b""
        if data:
            return Event(b"\n".join(data), name)
        return Event(comment, name) if name == b"error" else None
