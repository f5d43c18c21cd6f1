"""The connection to the client that a call uses beside ASGI, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from frontend.edge.connections import EdgeConnections
from frontend.edge.cors import Cors
from frontend.edge.http_protocol import EdgeConfig, HttpProtocol
from frontend.edge.refusals import Refusals
from lifecycle.fastapi.cancel_on_disconnect import CancelOnDisconnect
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.settings import load
from lifecycle.telemetry.metrics import Metrics

Call = Callable[[ClientConnection, Receive, Send], Awaitable[None]]

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"


@asynccontextmanager
async def _served(call: Call) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client's connection to a server that answers every request with `call`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = ClientConnection.of(scope)
        assert isinstance(connection, ClientConnection)
        await call(connection, receive, send)

    config = EdgeConfig(app, EdgeConnections(load()), Refusals(Metrics()), Cors(load()))
    state = ServerState()
    config.load()
    server = await asyncio.get_running_loop().create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield reader, writer
        writer.close()
        if state.tasks:
            await asyncio.wait(state.tasks)


async def test_a_response_in_pieces_past_asgi() -> None:
    found: list[object] = []

    async def call(raw: ClientConnection, receive: Receive, send: Send) -> None:
        found.extend((raw.body(), raw.write_nowait(b"too early"), raw.finish(b"too early")))
        found.extend((raw.begin([(b"x-a", b"1\r\nx-b: 2")]), raw.begin([(b"x-a", b"1")]), raw.begin([])))
        found.extend(
            (raw.write_nowait(b"one"), raw.finish(b"two"), raw.write_nowait(b"too late"), raw.finish(b"too late"))
        )

    async with _served(call) as (reader, writer):
        for _ in range(2):  # the connection is kept
            found.clear()
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head == b"HTTP/1.1 200 OK\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n"
            assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            assert found == [b"abc", False, False, False, True, False, True, True, False, False]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.parametrize("gone_before", [False, True])
async def test_a_disconnect_cancels_its_block_and_nothing_else(gone_before: bool) -> None:
    begun, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def call(raw: ClientConnection, receive: Receive, send: Send) -> None:
        begun.set()
        if gone_before:
            await _gone(receive)
        with CancelOnDisconnect(raw) as client:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        ended.set_result(client.disconnected)

    async with _served(call) as (_, writer):
        writer.write(REQUEST)
        await begun.wait()
        writer.transport.abort()
        assert await ended


@pytest.mark.parametrize("gone_before", [False, True])
async def test_who_no_longer_listens_is_not_cancelled(gone_before: bool) -> None:
    left, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def call(raw: ClientConnection, receive: Receive, send: Send) -> None:
        if gone_before:
            left.set()
            await _gone(receive)
        with CancelOnDisconnect(raw) as client:
            pass
        left.set()
        await _gone(receive)
        await asyncio.sleep(0)
        ended.set_result(client.disconnected)

    async with _served(call) as (_, writer):
        writer.write(REQUEST)
        await left.wait()
        writer.transport.abort()
        assert not await ended
