"""Plain requests over one kept connection, with little of Python between the clock and the socket."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Self, cast
from urllib.parse import urlsplit

import httptools
import orjson


class Answer(NamedTuple):
    status: int
    body: bytes


class Address(NamedTuple):
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url)
        assert parts.hostname is not None
        return cls(parts.hostname, parts.port or 80)


def encode(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """A request as it goes over the wire; header names with `_` for `-`."""
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(content)}"]
    if content:
        lines.append("content-type: application/json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Caller(asyncio.Protocol):
    """One request after the other: `await caller.call(encode("GET", "/ready"))`."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def connect(cls, url: str) -> Self:
        _, protocol = await asyncio.get_running_loop().create_connection(cls, *Address.of(url))
        return protocol

    async def call(self, request: bytes) -> Answer:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, failure: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(failure or ConnectionError("the server closed the connection"))

    # httptools calls these

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        answer, self._answer = self._answer, None
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if answer is not None and not answer.done():
            answer.set_result(Answer(status, body))
