"""The streaming response: tokens to a socket, events of one write together, an end that says what happened.

While the socket takes everything, tokens go to it in the turn of the loop in which they come, without waking a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend.hangup import Hangup
from frontend.sse import DONE, KEEPALIVE, ChunkEncoder, error_frame
from lifecycle.model import ErrorType, Status
from lifecycle.tokens.history import End, Tokens
from lifecycle.tokens.reader import SILENCE, TokenReader

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_WRITE_TOKENS = 256  # in one write at most: a slow socket must not make large buffers


class SlowConsumer(Exception):
    """The socket took nothing for too long."""


class SocketWatch:
    """Notices a write that makes no progress. Re-armed lazily: a write costs two assignments."""

    def __init__(self, limit_secs: float, on_stalled: Callable[[], None]) -> None:
        self._limit_secs = limit_secs
        self._on_stalled = on_stalled
        self._loop = asyncio.get_running_loop()
        self._writing_since: float | None = None
        self._timer = self._loop.call_later(limit_secs, self._tick)

    def begin(self) -> None:
        self._writing_since = self._loop.time()

    def end(self) -> None:
        self._writing_since = None

    def close(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        stalled_secs = 0.0 if self._writing_since is None else self._loop.time() - self._writing_since
        if stalled_secs >= self._limit_secs:
            self._on_stalled()
            return
        self._timer = self._loop.call_later(max(0.01, self._limit_secs - stalled_secs), self._tick)


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gracefully = False
        try:
            self._on_begin()
            async with Hangup(receive):
                await self._write(scope, send)
                gracefully = True
        except SlowConsumer:
            try:
                await self._on_slow(f"The client took nothing for {self._slow_consumer_secs:g} seconds")
            finally:
                _abort(scope)
        finally:
            await self._on_closed(gracefully)

    async def _write(self, scope: Scope, send: Send) -> None:
        writing = asyncio.current_task()
        assert writing is not None
        stalled = False

        def on_stalled() -> None:
            nonlocal stalled
            stalled = True
            writing.cancel()

        watch = SocketWatch(self._slow_consumer_secs, on_stalled)
        pour = scope.get("extensions", {}).get("lifecycle.pour")
        if pour is not None:
            self._reader.tap = lambda tokens: pour(self._encoder.tokens(*tokens))

        async def write(data: bytes, more: bool = True) -> None:
            watch.begin()
            await send({"type": "http.response.body", "body": data, "more_body": more})
            watch.end()

        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while True:
                item = await self._reader.next()
                if item is SILENCE:
                    await write(KEEPALIVE)
                    continue
                data, end = self._gather(item)
                if end is None:
                    await write(data)
                    continue
                await write(data + self._ending(end), more=False)
                return
        except asyncio.CancelledError:
            if stalled:
                writing.uncancel()
                raise SlowConsumer from None
            raise
        finally:
            watch.close()

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


def _abort(scope: Scope) -> None:
    """Drop the connection with whatever its buffer holds: its client does not take it."""
    abort = scope.get("extensions", {}).get("lifecycle.abort")
    if abort is not None:
        abort()
