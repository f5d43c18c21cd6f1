"""A frontend inside the test's own process, served as `lifecycle frontend` serves it, but for the signals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2

from frontend.server import Server, listen, make_server
from lifecycle.fastapi.api_keys import Keyring
from lifecycle.settings import Settings
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from tests.waiting import wait_until


@dataclass(frozen=True)
class EdgeServer:
    """Hold what a test needs of the frontend. `http` has its URL as the base URL."""

    port: int
    http: httpx2.AsyncClient
    server: Server
    tracker: Tracker


@asynccontextmanager
async def edge_server(settings: Settings, listener: socket.socket | None = None) -> AsyncIterator[EdgeServer]:
    """Serve on a free port, or on a socket that is bound already, until the block ends."""
    listener = listener or listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with (
        Keyring.open(settings) as keyring,
        Tracker.open(settings, Metrics(), url) as tracker,
        httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as http,
    ):
        server = make_server(tracker, keyring)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await wait_until(lambda: server.started, what="a server")
            yield EdgeServer(port, http, server, tracker)
        finally:
            server.should_exit = server.force_exit = True
            await running
