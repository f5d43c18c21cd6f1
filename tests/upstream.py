"""An upstream for the openai engine: a server on a real socket that plays a script for each request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from lifecycle.errors import EngineError, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.types import Event
from worker.engines.openai import OpenAIEngine

BOUND_SECS = 10.0
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

Script = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request as the upstream received it, and the means to answer it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter
    method: str = "POST"

    async def head(self, status: str = "200 OK", kind: str = "text/event-stream", **more: str) -> None:
        headers = {"content-type": kind, "transfer-encoding": "chunked"} | {
            name.replace("_", "-"): value for name, value in more.items()
        }
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self.writer.drain()

    async def send(self, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def answer(self, body: Any, status: str = "200 OK") -> None:
        """Answer with a body of JSON."""
        await self.head(status, "application/json")
        await self.send(orjson.dumps(body))
        await self.end()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


@dataclass
class Upstream:
    """A server that plays `script` for each request and notices when its client goes."""

    script: Script
    url: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    received: asyncio.Event = field(default_factory=asyncio.Event)
    client_left: asyncio.Event = field(default_factory=asyncio.Event)
    left: list[Exchange] = field(default_factory=list)  # the last one of each connection that its client has closed

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        exchange = None
        try:
            while True:
                exchange = await self._read(reader, writer)
                self.exchanges.append(exchange)
                self.received.set()
                await self.script(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += [exchange] if exchange else []
            self.client_left.set()
        finally:
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = request_line.split()
        return Exchange(path, headers, json.loads(body or b"{}"), writer, method)


Serve = Callable[[Script], Awaitable[tuple[Upstream, OpenAIEngine]]]


def chunk(text: str | None, **more: Any) -> str:
    return f"data: {orjson.dumps({'choices': [{'index': 0, 'delta': {'content': text}, **more}]}).decode()}\n\n"


def text_chunk(text: str, **more: Any) -> str:
    return f"data: {orjson.dumps({'choices': [{'index': 0, 'text': text, **more}]}).decode()}\n\n"


USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
DONE = "data: [DONE]\n\n"


def playing(*parts: bytes | str, finish: bool = True, **head: str) -> Script:
    """Sends the head, then each part by itself, then the end of the body; or hangs up in the middle of it."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(**head)
        for part in parts:
            await exchange.send(part)
        if finish:
            await exchange.end()
        else:
            exchange.writer.close()

    return script


def silent_after(*parts: str, head: bool = True) -> Script:
    """Sends the parts, then nothing more."""

    async def script(exchange: Exchange) -> None:
        if head:
            await exchange.head()
        for part in parts:
            await exchange.send(part)

    return script


async def collect(
    engine: OpenAIEngine, request: dict[str, Any] = REQUEST, context: EngineContext | None = None
) -> list[Event]:
    async with asyncio.timeout(BOUND_SECS):
        return [token async for token in engine(request, context or EngineContext("r"))]


async def within_bound(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), BOUND_SECS)


async def failing(engine: OpenAIEngine) -> tuple[list[Event], EngineError | Unavailable]:
    """Return what the engine yielded, and what it raised."""
    said: list[Event] = []
    try:
        async with asyncio.timeout(BOUND_SECS):
            async for token in engine(REQUEST, EngineContext("r")):
                said.append(token)
    except (EngineError, Unavailable) as raised:
        return said, raised
    raise AssertionError(f"no error after {said}")


async def failure(engine: OpenAIEngine) -> tuple[list[Event], str]:
    """Return what the engine yielded, and the message of the error that it raised."""
    said, raised = await failing(engine)
    return said, raised.message
