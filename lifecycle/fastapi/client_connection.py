"""The client at the other end of a call's connection: what ASGI cannot say of it, or only with a task or a turn of the
loop more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_EXTENSION = "lifecycle.peer"
_CHUNKED = ((b"transfer-encoding", b"chunked"),)


class ClientConnection:
    """Of one call. `on_gone` is its connection's, and called when that has been lost."""

    __slots__ = ("_cycle", "_on_gone")

    def __init__(self, cycle: RequestResponseCycle, on_gone: set[Callable[[], None]]) -> None:
        self._cycle = cycle
        self._on_gone = on_gone

    @classmethod
    def of(cls, scope: Scope) -> ClientConnection:
        return cast(ClientConnection, scope["extensions"][_EXTENSION])

    def put_into(self, scope: Any) -> None:
        scope["extensions"] = {_EXTENSION: self}

    def body(self) -> bytes | None:
        """The call's, if it is here as a whole, and only once."""
        cycle = self._cycle
        if cycle.more_body:
            return None
        body, cycle.body = cycle.body, bytearray()
        return bytes(body)

    @property
    def is_full(self) -> bool:
        """The socket takes nothing now."""
        return self._cycle.flow.write_paused

    def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """A response of unknown length with status 200; uvicorn would look at each header with Python. False, and
        nothing is sent, unless the socket takes it; or if a header is none, which uvicorn will say.
        """
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers, *_CHUNKED)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines):
            return False
        cycle.response_started, cycle.waiting_for_100_continue, cycle.chunked_encoding = True, False, True
        cycle.transport.write(b"HTTP/1.1 200 OK\r\n%b\r\n" % head)
        return True

    def write_nowait(self, data: bytes) -> bool:
        """A piece of the body, to the socket at once. False, and nothing is sent, unless it takes it."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete or not cycle.chunked_encoding:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def finish(self, data: bytes) -> bool:
        """The last piece, in the same way."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete or not cycle.chunked_encoding:
            return False
        sending = cycle.send({"type": "http.response.body", "body": data, "more_body": False})
        with suppress(StopIteration):
            sending.send(None)  # to its end: it waits only for a socket that is full
        return True

    def abort(self) -> None:
        """Drop the connection with whatever its buffer holds: closing alone waits for one that is never taken."""
        self._cycle.transport.abort()

    def listen(self, on_gone: Callable[[], None]) -> None:
        """`on_gone` is called once it goes, soon if it has gone."""
        self._on_gone.add(on_gone)
        self._cycle.flow.resume_reading()  # paused for a large body, its going would not be noticed
        if self._cycle.transport.is_closing():
            asyncio.get_running_loop().call_soon(on_gone)

    def unlisten(self, on_gone: Callable[[], None]) -> None:
        self._on_gone.discard(on_gone)
