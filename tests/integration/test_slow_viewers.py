"""A viewer of `/v1/overview` that reads nothing is dropped after LIFECYCLE_SLOW_CONSUMER_SECS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from lifecycle.store.new_request import AdmissionRequest
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Labels, Limits, OnDisconnect
from tests.conftest import MakeSettings
from tests.edge import edge_server
from tests.waiting import wait_until

SMALL_BUFFER_BYTES = 4096
REQUESTS = 200
SLOW_SECS = 1.0
LONG_MODEL = "m" * 100


async def admit(tracker: Tracker, number: int) -> None:
    """Queue a request that nobody will run."""
    call = AdmissionRequest(
        f"{number:03}-" + "r" * 100,
        Labels(LONG_MODEL, "chat_completions", "unary"),
        orjson.dumps({}),
        OnDisconnect.CONTINUE,
        0.0,
        Limits(0, 0, 0),
    )
    admitted = await tracker.admit(call)
    admitted.connection.disarm()
    admitted.connection.close()


@asynccontextmanager
async def silent_viewer(port: int) -> AsyncIterator[None]:
    """Ask for the overview, and read nothing."""
    with socket.socket() as viewer:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        viewer.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(viewer, ("127.0.0.1", port))
        await loop.sock_sendall(viewer, b"GET /v1/overview?rows=200 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield


@pytest.mark.leaves_inflight
async def test_a_viewer_that_reads_nothing_is_dropped(make_settings: MakeSettings) -> None:
    """The listening socket has small buffers, so that one picture of 200 requests fills what the kernel takes."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    listener.bind(("127.0.0.1", 0))
    settings = make_settings(slow_consumer_secs=SLOW_SECS, queue_without_workers=True)
    async with edge_server(settings, listener) as edge:
        for number in range(REQUESTS):
            await admit(edge.tracker, number)
        async with silent_viewer(edge.port):
            state = edge.server.server_state
            connections: set[Any] = await wait_until(lambda: set(state.connections), what="a connection")

            def waits() -> bool:
                return all(connection.flow.write_paused for connection in connections)

            await wait_until(waits, what="a viewer that reads nothing")
            await wait_until(lambda: not state.connections, 3 * SLOW_SECS, "a viewer that is dropped")
