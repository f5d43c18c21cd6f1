"""A receiver of webhooks: a real HTTP server that keeps what it got and answers as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from tests.waiting import wait_until

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"


@dataclass(frozen=True)
class Got:
    """One call: its path, its headers in lower case, its body, and the port that it came from."""

    path: str
    headers: dict[str, str]
    body: bytes
    port: int

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """The event; raises when its signature is wrong."""
        event: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return event


@dataclass
class Receiver:
    """Answers 200, or the next of `statuses`. While `holds` is set, calls are kept without an answer."""

    port: int = 0
    calls: list[Got] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    head: str = ""  # further lines of the answers' heads
    holds: bool = False
    holding: int = 0
    most_held: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def of(self, rid: str) -> list[Got]:
        """The calls about one request."""
        return [got for got in self.calls if got.verified()["data"]["id"] == rid]

    async def got(self, number: int = 1, timeout_secs: float = 15.0) -> list[Got]:
        """The first calls, once so many have come."""
        await wait_until(lambda: len(self.calls) >= number, timeout_secs, f"{number} webhooks")
        return self.calls[:number]

    def release(self) -> None:
        """Answer what is held, and hold no more."""
        self.holds = False
        self._released.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the caller has gone
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        body = await reader.readexactly(int(headers["content-length"]))
        self.calls.append(Got(first.split(" ")[1], headers, body, writer.get_extra_info("peername")[1]))
        if self.holds:
            self.holding += 1
            self.most_held = max(self.most_held, self.holding)
            await self._released.wait()
            self.holding -= 1
        status = self.statuses.pop(0) if self.statuses else 200
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{self.head}\r\nok".encode())
        await writer.drain()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.release()
        server.close()
        await server.wait_closed()
