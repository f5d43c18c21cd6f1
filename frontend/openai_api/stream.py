"""The streaming response: tokens to a socket, events of one write together, an end that says what happened.

While the socket takes everything, tokens go to it in the turn of the loop in which they come, without waking a task.
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
_WRITE_TOKENS = 256  # in one write at most: a slow socket must not make large buffers


class SlowConsumer(Exception):
    """The socket took nothing for too long."""


class TokenStreamResponse(Response):
    """Streams one reader. `on_closed(gracefully)` is awaited exactly once, whatever ends the response."""

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
        self._ended = False  # all has been sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = ClientConnection.of(scope)
        try:
            self._on_begin()
            with CancelOnDisconnect(peer):
                await self._write(peer, send)
        except SlowConsumer:
            try:
                await self._on_slow(f"The client took nothing for {self._slow_consumer_secs:g} seconds")
            finally:
                peer.abort()
        finally:
            await self._on_closed(self._ended)

    async def _write(self, peer: ClientConnection, send: Send) -> None:
        """Raises SlowConsumer."""

        def end_at_once(end: End) -> None:
            self._ended = peer.finish(self._ending(end))

        pour, encode = peer.write_nowait, self._encoder.tokens
        self._reader.on_events = lambda tokens: pour(encode(*tokens))
        self._reader.on_end = end_at_once
        await self._send(
            peer, send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        while not self._ended:
            item = await self._reader.next()
            if self._ended:  # while that was waited for
                return
            data, end = (KEEPALIVE, None) if item is SILENCE else self._gather(item)
            if end is not None:
                data += self._ending(end)
            await self._send(peer, send, {"type": "http.response.body", "body": data, "more_body": end is None})
            self._ended = end is not None

    async def _send(self, peer: ClientConnection, send: Send, message: Message) -> None:
        if not peer.is_full:
            await send(message)  # without waiting
            return
        try:
            async with asyncio.timeout(self._slow_consumer_secs):
                await send(message)
        except TimeoutError:
            raise SlowConsumer from None

    def _gather(self, item: Tokens | End) -> tuple[bytes, End | None]:
        """Everything that is there already goes into one write; still one event a token."""
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
