"""Stream the events of a request to a client as server-sent events.

The response to a call that starts a request is held until the first event or the end, or for HEADERS_AFTER_SECS, so
that what goes wrong before is answered with an HTTP status.

While the socket's write buffer has room, tokens are written in the same iteration of the event loop in which they
arrive, without waking a task.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from frontend.endpoints.endpoint import EventEncoder
from frontend.transport.error_responses import error_response
from lifecycle.fastapi.cancel_on_disconnect import CancelOnDisconnect
from lifecycle.fastapi.client_connection import AsgiConnection, ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.json_events import KEEPALIVE
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import SILENCE, Item, TokenReader
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Event, Status

_COMPLETED = Status.COMPLETED  # a global name: looking a member up in its enum is slow
EVENT_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_HOLDING_SECS = 1.0  # for the fields beside the usage, which come soon behind the last finish reason or not at all
_WRITE_BYTES = 64 * 1024  # after which a write ends, so that a slow socket does not need large buffers


def empty_stream() -> Response:
    """Return a stream without any event, for a client that has them all."""
    response = Response(b"")
    response.raw_headers = [*EVENT_STREAM_HEADERS, (b"content-length", b"0")]
    return response


def stream_head() -> Response:
    """Return the head of an event stream, for a HEAD: it opens no reader."""
    response = Response()
    response.raw_headers = list(EVENT_STREAM_HEADERS)
    return response


Connection = ClientConnection | AsgiConnection


class SlowConsumer(Exception):
    """Raised when the client has read nothing for too long."""


class TokenStreamResponse(Response):
    """Stream what one reader delivers, and end the stream with the outcome of its request.

    The response begins with the first event that is no opening, with the end, or after `headers_after_secs`, whichever
    comes first. A request that does not complete before that is answered with the HTTP error of `error_of(end)`. As it
    is, the stream is for any reader; a subclass serves the call that has started the request.
    """

    def __init__(
        self, tracker: Tracker, reader: TokenReader, encoder: EventEncoder, headers_after_secs: float = 0.0
    ) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = list(EVENT_STREAM_HEADERS)
        self._tracker = tracker
        self._reader = reader
        self._encoder = encoder
        self._slow_consumer_secs = tracker.settings.slow_consumer_secs
        self._headers_after_secs = headers_after_secs
        self._openings: list[Tokens] = []  # read before the response begins
        self._ended = False  # the whole response has been sent
        self._release: asyncio.TimerHandle | None = None  # ends the wait of an event that is held back

    def on_begin(self) -> None:
        """Prepare, before the response begins."""

    def is_opening(self, event: Event) -> bool:
        """Return whether the event says only that an answer begins."""
        return False

    def error_of(self, end: End) -> ApiError | None:
        """Return the HTTP error for a request that has not completed; None to tell it in the stream."""
        return None

    async def on_closed(self, gracefully: bool) -> None:
        """Close the reader. Awaited exactly once, however the response ends."""
        status = ConnectionStatus.CLOSED_GRACEFULLY if gracefully else ConnectionStatus.CLOSED_UNEXPECTEDLY
        await self._tracker.close_reader(self._reader, status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = ClientConnection.of(scope)
        try:
            self.on_begin()
            with CancelOnDisconnect(connection, self._reader.feed.loop):
                item = await self._hold()
                error = self.error_of(item) if isinstance(item, End) and item.status != _COMPLETED else None
                if error is not None:
                    await error_response(scope, error)(scope, receive, send)
                    self._ended = True
                else:
                    await self._write(connection, send, item)
        except SlowConsumer:
            message = f"The client read nothing for {self._slow_consumer_secs:g} seconds, the limit for slow clients"
            try:
                await self._tracker.fail_slow_consumer(self._reader, message)
            finally:
                connection.abort()
        finally:
            if self._release is not None:
                self._release.cancel()
            await self.on_closed(self._ended)

    async def _hold(self) -> Item:
        """Return the first item; SILENCE when the response is to begin without one."""
        if self._headers_after_secs <= 0:
            return SILENCE
        due = False

        def begin() -> None:
            nonlocal due
            due = True
            self._reader.interrupt()

        timer = self._reader.feed.loop.call_later(self._headers_after_secs, begin)
        try:
            item = await self._reader.next()
            while (item is SILENCE and not due) or self._opens(item):
                if isinstance(item, Tokens):
                    self._openings.append(item)
                item = await self._reader.next()
        finally:
            timer.cancel()
        return item

    def _opens(self, item: Item) -> bool:
        """Return whether the item has only events that say that an answer begins."""
        return isinstance(item, Tokens) and all(map(self.is_opening, item.events))

    async def _write(self, connection: Connection, send: Send, item: Item) -> None:
        """Write the whole response, which begins with `item`. Raises SlowConsumer."""
        begun, before = False, self._encode(self._openings) if self._openings else b""
        if before or item is not SILENCE:
            connection.join_head()
        await self._send(
            connection, send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        if before and item is SILENCE:
            await self._write_body(connection, send, before, more=True)
            before = b""
        while not self._ended:
            if begun or item is SILENCE:
                if self._reader.on_events is None:
                    self._write_at_once(connection)
                item = await self._reader.next()
                if self._ended:  # `end_at_once` was called during the wait
                    return
            begun = True
            data, end = (self._on_silence(), None) if item is SILENCE else self._gather(item)
            data, before = before + data, b""
            if end is not None:
                data += self._encoder.ending(end)
            elif self._encoder.is_holding:
                self._limit_holding()
            if end is None and not data:
                continue
            await self._write_body(connection, send, data, more=end is None)
            self._ended = end is not None

    def _write_at_once(self, connection: Connection) -> None:
        """Let the reader write what it gets during a wait, without waking the task."""
        write, encoder, encode = connection.write_nowait, self._encoder, self._encoder.tokens

        def end_at_once(end: End) -> None:
            self._ended = connection.finish(self._encoder.ending(end))

        def write_at_once(tokens: Tokens) -> bool:
            attempt, first, events, _ = tokens
            data = encode(attempt, first, events)
            if encoder.is_holding:
                self._limit_holding()
            return not data or write(data)

        self._reader.on_events = write_at_once
        self._reader.on_end = end_at_once

    def _encode(self, openings: list[Tokens]) -> bytes:
        data = b"".join(self._encoder.tokens(*tokens[:3]) for tokens in openings)
        openings.clear()
        return data

    def _limit_holding(self) -> None:
        """Let the reader return SILENCE soon, so that an event that is held back does not wait for long."""
        if self._release is None:
            self._release = asyncio.get_running_loop().call_later(_HOLDING_SECS, self._reader.interrupt)

    def _on_silence(self) -> bytes:
        """Return what to write when no event has come: the event that is held back, else a comment."""
        if self._release is not None:
            self._release.cancel()
            self._release = None
        return self._encoder.release() or KEEPALIVE

    async def _write_body(self, connection: Connection, send: Send, data: bytes, *, more: bool) -> None:
        """Write a part of the body: at once if the socket takes it, else through ASGI. Raises SlowConsumer."""
        if connection.write_nowait(data) if more else connection.finish(data):
            return
        connection.release_head()
        await self._send(connection, send, {"type": "http.response.body", "body": data, "more_body": more})

    async def _send(self, connection: Connection, send: Send, message: Message) -> None:
        """Send one ASGI message. Raises SlowConsumer."""
        if not connection.is_write_paused:
            await send(message)  # returns without waiting
            return
        try:
            async with asyncio.timeout(self._slow_consumer_secs):
                await send(message)
        except TimeoutError:
            raise SlowConsumer from None

    def _gather(self, item: Tokens | End) -> tuple[bytes, End | None]:
        """Encode all tokens that are available now for one write, still with one event for each token."""
        pieces: list[bytes] = []
        size = 0
        current: Tokens | End | None = item
        while isinstance(current, Tokens):
            pieces.append(self._encoder.tokens(current.attempt, current.first, current.events))
            size += len(pieces[-1])
            if size >= _WRITE_BYTES:
                return b"".join(pieces), None
            current = self._reader.next_nowait()
        return b"".join(pieces), current
