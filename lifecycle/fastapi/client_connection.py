"""Access the client's connection of one HTTP call beyond what ASGI offers.

Through ASGI, noticing a disconnect needs a task of its own, and each write needs a coroutine to be resumed. Here both
use uvicorn's objects directly, under the product's own server. Under any other one, or with an application in between,
`AsgiConnection` takes no shortcut. It is tested with the versions of uvicorn that pyproject.toml allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_EXTENSION = "lifecycle.client_connection"
_CHUNKED, _CLOSE = (b"transfer-encoding", b"chunked"), (b"connection", b"close")


class ClientConnection:
    """Read from, write to and observe the connection of one HTTP call.

    `disconnect_callbacks` belongs to the connection, which may carry several calls one after the other. Its members
    are called when the connection is lost.
    """

    __slots__ = ("_cycle", "_disconnect_callbacks", "_head", "_joins_head")

    def __init__(self, cycle: RequestResponseCycle, disconnect_callbacks: set[Callable[[], None]]) -> None:
        self._cycle = cycle
        self._disconnect_callbacks = disconnect_callbacks
        self._joins_head = False  # the next head is written together with what follows it
        self._head = b""  # begun and not written yet

    @classmethod
    def of(cls, scope: Scope) -> ClientConnection | AsgiConnection:
        """Return the connection that was put into this ASGI scope. Raises KeyError when there is none."""
        connection: ClientConnection | AsgiConnection = scope["extensions"][_EXTENSION]
        return connection

    @classmethod
    def find(cls, scope: Scope, receive: Receive) -> ClientConnection | AsgiConnection:
        """Return the connection in this scope; one that uses nothing but ASGI is put there if there is none."""
        extensions = scope.get("extensions") or {}
        if _EXTENSION not in extensions:  # a copy, because servers may share the dict between calls, as granian does
            scope["extensions"] = {**extensions, _EXTENSION: AsgiConnection(scope, receive)}
        return cls.of(scope)

    def put_into(self, scope: Any) -> None:
        """Store this connection in an ASGI scope."""
        scope["extensions"] = {_EXTENSION: self}

    @staticmethod
    def take_out_of(scope: Scope) -> None:
        """Remove the connection from the scope of a call that has ended.

        The connection leads back to the scope, so both would stay until the garbage collector finds them.
        """
        (scope.get("extensions") or {}).pop(_EXTENSION, None)  # other servers may have none

    def body(self) -> bytes | None:
        """Take the request body if it has arrived completely, else return None. A second call returns b""."""
        cycle = self._cycle
        if cycle.more_body:
            return None
        body, cycle.body = cycle.body, bytearray()
        return bytes(body)

    @property
    def is_write_paused(self) -> bool:
        """Return whether the write buffer of the socket is full."""
        return self._cycle.flow.write_paused

    @property
    def is_head(self) -> bool:
        """Return whether the client asks for the head of the response only."""
        return self._cycle.scope["method"] == "HEAD"

    def join_head(self) -> None:
        """Let `begin` keep the response's head, for the write that follows at once, which saves a system call."""
        self._joins_head = True

    def release_head(self) -> None:
        """Write the head that `begin` has kept, if any."""
        head, self._head = self._head, b""
        if head:
            self._cycle.transport.write(head)

    def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Start a chunked response with status 200 at once. Faster than uvicorn, which checks each header in Python.

        Return False, having sent nothing, when the socket's write buffer is full, when a response cannot be started
        now or must not be chunked, or when a header contains a line break; the caller then sends it through ASGI.
        """
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_started or self.is_head:
            return False
        if cycle.chunked_encoding is not None:
            return False
        headers = [*cycle.default_headers, *headers, _CHUNKED]
        if not cycle.keep_alive:
            headers.append(_CLOSE)
        head = b"\r\n".join(map(b": ".join, headers))
        if head.count(b"\n") != len(headers) - 1:
            return False
        cycle.response_started, cycle.waiting_for_100_continue, cycle.chunked_encoding = True, False, True
        self._head = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head
        if not self._joins_head:
            self.release_head()
        return True

    def write_nowait(self, data: bytes) -> bool:
        """Write a part of the body at once. Return False, having sent nothing, when that is not possible now."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete or not cycle.chunked_encoding:
            return False
        head, self._head = self._head, b""
        cycle.transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        return True

    def finish(self, data: bytes) -> bool:
        """Write the last part of the body at once. Return False, having sent nothing, when that is not possible now."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete or not cycle.chunked_encoding:
            return False
        head, self._head = self._head, b""
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        cycle.transport.write(b"%b%b0\r\n\r\n" % (head, chunk))
        cycle.response_complete = True  # from here on as at the end of `RequestResponseCycle.send`
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def abort(self) -> None:
        """Drop the connection and its write buffer. Closing it would wait until the client has read the buffer."""
        self._cycle.transport.abort()

    def add_disconnect_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the client disconnects; soon, if it has disconnected already."""
        self._disconnect_callbacks.add(callback)
        # uvicorn pauses reading while a large body waits; a disconnect would then go unnoticed.
        self._cycle.flow.resume_reading()
        if self._cycle.transport.is_closing():
            asyncio.get_running_loop().call_soon(callback)

    def remove_disconnect_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_disconnect_callback`."""
        self._disconnect_callbacks.discard(callback)


class AsgiConnection:
    """Stand for a connection of which nothing is known but ASGI: each shortcut answers that it was not taken."""

    is_write_paused = True  # so each write is awaited, within the limit for slow clients

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._callbacks: set[Callable[[], None]] = set()
        self._listening: asyncio.Task[None] | None = None

    def body(self) -> bytes | None:
        """Return None: the body is to be received."""
        return None

    @property
    def is_head(self) -> bool:
        """Return whether the client asks for the head of the response only."""
        return bool(self._scope["method"] == "HEAD")

    def join_head(self) -> None:
        """Do nothing: there is nothing to join."""

    def release_head(self) -> None:
        """Do nothing: no head is kept."""

    def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Return False: the head goes through ASGI."""
        return False

    def write_nowait(self, data: bytes) -> bool:
        """Return False: the data goes through ASGI."""
        return False

    def finish(self, data: bytes) -> bool:
        """Return False: the data goes through ASGI."""
        return False

    def abort(self) -> None:
        """Do nothing: the server drops the connection of a response that is not completed."""

    def add_disconnect_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the client disconnects. The request's body has been received before."""
        self._callbacks.add(callback)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="disconnect")

    def remove_disconnect_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_disconnect_callback`."""
        self._callbacks.discard(callback)
        if not self._callbacks and self._listening is not None:
            self._listening.cancel()
            self._listening = None

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        for callback in tuple(self._callbacks):
            callback()
