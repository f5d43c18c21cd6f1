"""One streamed completion from the client's side: that it has begun, and that it has ended."""

from __future__ import annotations

import asyncio
from typing import Self, cast

from benchmarks.caller import Address, encode

MODEL = "benchmark"
PATH = "/v1/chat/completions"
_TOKEN = b'"content":"'
_DONE = b"data: [DONE]"


def completion(prompt: str, *, stream: bool = True, **headers: str) -> bytes:
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    return encode("POST", PATH, body, **headers)


class Stream(asyncio.Protocol):
    """`begin()` sends the request; `first` is done with the first token, `ended` with the end, however it came."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._transport: asyncio.WriteTransport | None = None
        self._tail = b""

    @classmethod
    async def open(cls, url: str, request: bytes) -> Self:
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: cls(request), *Address.of(url))
        return stream

    def begin(self) -> None:
        assert self._transport is not None
        self._transport.write(self._request)

    def close(self) -> None:
        """Go away, as a client does whose user has closed the window."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._tail += data
        if not self.first.done() and _TOKEN in self._tail:
            self.first.set_result(None)
        if _DONE in self._tail:
            self._end()
        self._tail = self._tail[-len(_DONE) :] if self.first.done() else self._tail

    def connection_lost(self, failure: Exception | None) -> None:
        if not self.first.done():
            self.first.set_exception(ConnectionError(f"no token came: {self._tail[:300]!r}"))
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
