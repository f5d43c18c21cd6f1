"""A viewer of `/v1/overview` that takes nothing must be dropped after LIFECYCLE_SLOW_CONSUMER_SECS.

Today the response ends with an error inside, and the connection stays with what is buffered for it. The listening
socket has small buffers, so that one picture of 200 requests fills what the kernel takes and another waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
import uvicorn

from frontend.app import create_app
from frontend.server import Protocol
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.admission import AdmissionRequest
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Labels, Limits, OnDisconnect
from tests.conftest import MakeSettings
from tests.waiting import wait_until

SMALL_BUFFER_BYTES = 4096
REQUESTS = 200
SLOW_SECS = 1.0
LONG_MODEL = "m" * 100


@asynccontextmanager
async def serving(tracker: Tracker) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve the tracker as a frontend does. Yields the server and its port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(tracker), log_level="critical", lifespan="off", http=Protocol)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await wait_until(lambda: server.started, what="a server")
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await running


async def admit(tracker: Tracker, number: int) -> str:
    """Queue a request that nobody will run. Return its id."""
    rid = f"{number:03}-" + "r" * 100
    call = AdmissionRequest(
        rid,
        Labels(LONG_MODEL, "chat_completions", "unary"),
        orjson.dumps({}),
        OnDisconnect.CONTINUE,
        0.0,
        Limits(0, 0, 0),
    )
    flight = await tracker.admit(call)
    flight.connection.disarm()
    flight.connection.close()
    return rid


@asynccontextmanager
async def stalled_viewer(port: int) -> AsyncIterator[None]:
    """Ask for the overview, and read nothing."""
    with socket.socket() as viewer:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        viewer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(viewer, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(
            viewer, b"GET /v1/overview?rows=200 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        yield


@pytest.mark.leaves_inflight
@pytest.mark.xfail(strict=True, reason="a_overview_slow: a viewer that takes nothing keeps its connection for ever")
async def test_a_viewer_that_takes_nothing_is_dropped(make_settings: MakeSettings) -> None:
    settings = make_settings(slow_consumer_secs=SLOW_SECS, queue_without_workers=True)
    async with AsyncExitStack() as stack:
        tracker = await stack.enter_async_context(Tracker.open(settings, Metrics(), "http://test"))
        server, port = await stack.enter_async_context(serving(tracker))
        for number in range(REQUESTS):
            await admit(tracker, number)
        await stack.enter_async_context(stalled_viewer(port))
        connections: set[Any] = await wait_until(lambda: set(server.server_state.connections), what="a connection")

        def waits() -> bool:
            return all(connection.flow.write_paused for connection in connections)

        await wait_until(waits, what="a viewer that takes nothing")
        await wait_until(lambda: not server.server_state.connections, 3 * SLOW_SECS, "a viewer that is dropped")
