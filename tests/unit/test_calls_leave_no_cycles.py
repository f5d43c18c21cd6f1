"""An HTTP call is freed when it has ended: it does not wait for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from frontend.edge.connections import EdgeConnections
from frontend.edge.cors import Cors
from frontend.edge.http_protocol import EdgeConfig, HttpProtocol
from frontend.edge.refusals import Refusals
from frontend.transport.request_id import RequestIdMiddleware
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.settings import load
from lifecycle.telemetry.metrics import Metrics


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("without_collector")
async def test_a_call_is_freed_at_its_end() -> None:
    connections: list[weakref.ref[object]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = ClientConnection.of(scope)
        assert isinstance(connection, ClientConnection)
        connections.append(weakref.ref(connection._cycle))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert connection.finish(b"answer")

    refusals = Refusals(Metrics())
    outermost = RequestIdMiddleware(app, lambda _: (), refusals.count, takes_ids=True)
    config, state = EdgeConfig(outermost, EdgeConnections(load()), refusals, Cors(load())), ServerState()
    config.load()
    server = await asyncio.get_running_loop().create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(2):  # a connection holds its latest call
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"0\r\n\r\n")
            while state.tasks:
                await asyncio.sleep(0)
        assert [found() is None for found in connections] == [True, False]
        writer.close()


async def test_a_server_without_extensions_is_served() -> None:
    scope: Scope = {"type": "http"}
    ClientConnection.take_out_of(scope)
    assert scope == {"type": "http"}
