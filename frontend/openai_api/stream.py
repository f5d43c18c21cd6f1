"""Stream the tokens of a request to a client as server-sent events.

While the socket's write buffer has room, tokens are written in the same iteration of the event loop in which they
arrive, without waking a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from frontend.openai_api.sse import DONE, KEEPALIVE, ChunkEncoder, error_frame
from lifecycle.fastapi.cancel_on_disconnect import CancelOnDisconnect
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import SILENCE, TokenReader
from lifecycle.types import ErrorType, Status

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_WRITE_TOKENS = 256  # at most in one write, so that a slow socket does not need large buffers


class SlowConsumer(Exception):
    """Raised when the client has read nothing for too long."""


class TokenStreamResponse(Response):
    """Stream what one reader delivers, and end the stream with the outcome of its request.

    `on_begin()` is called before the response begins. `on_slow(message)` is awaited when the client has read nothing
    for `slow_consumer_secs`; its connection is dropped then. `on_closed(gracefully)` is awaited exactly once, however
    the response ends.
    """

    def __init__(
        self,
        reader: TokenReader,
        encoder: ChunkEncoder,
        *,
        request_id: str,
        include_usage: bool,
        slow_consumer_secs: float,
        on_begin: Callable[[], None],
        on_closed: Callable[[bool], Awaitable[None]],
        on_slow: Callable[[str], Awaitable[None]],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = list(_HEADERS)
        self._reader = reader
        self._encoder = encoder
        self._request_id = request_id
        self._include_usage = include_usage
        self._slow_consumer_secs = slow_consumer_secs
        self._on_begin = on_begin
        self._on_closed = on_closed
        self._on_slow = on_slow
        self._ended = False  # the whole response has been sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = ClientConnection.of(scope)
        try:
            self._on_begin()
            with CancelOnDisconnect(connection):
                await self._write(connection, send)
        except SlowConsumer:
            try:
                await self._on_slow(
                    f"The client read nothing for {self._slow_consumer_secs:g} seconds, the limit for slow clients"
                )
            finally:
                connection.abort()
        finally:
            await self._on_closed(self._ended)

    async def _write(self, connection: ClientConnection, send: Send) -> None:
        """Write the whole response. Raises SlowConsumer."""

        def end_at_once(end: End) -> None:
            self._ended = connection.finish(self._ending(end))

        write, encode = connection.write_nowait, self._encoder.tokens
        self._reader.on_events = lambda tokens: write(encode(*tokens))
        self._reader.on_end = end_at_once
        await self._send(
            connection, send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        while not self._ended:
            item = await self._reader.next()
            if self._ended:  # `end_at_once` was called during the wait
                return
            data, end = (KEEPALIVE, None) if item is SILENCE else self._gather(item)
            if end is not None:
                data += self._ending(end)
            await self._send(connection, send, {"type": "http.response.body", "body": data, "more_body": end is None})
            self._ended = end is not None

    async def _send(self, connection: ClientConnection, send: Send, message: Message) -> None:
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
        tokens = 0
        current: Tokens | End | None = item
        while isinstance(current, Tokens):
            pieces.append(self._encoder.tokens(current.attempt, current.first, current.texts))
            tokens += len(current.texts)
            if tokens >= _WRITE_TOKENS:
                return b"".join(pieces), None
            current = self._reader.next_nowait()
        return b"".join(pieces), current

    def _ending(self, end: End) -> bytes:
        if end.status == Status.COMPLETED:
            usage = self._encoder.usage(end.input_tokens, end.last) if self._include_usage else b""
            return self._encoder.finish(end.finish_reason or "stop") + usage + DONE
        return error_frame(ErrorType(end.error_type), end.message, self._request_id) + DONE
