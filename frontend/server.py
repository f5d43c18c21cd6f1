"""Runs one frontend: uvicorn around the application, and a drain that ends streams before the process.

uvicorn alone waits for open streams for ever. Here the first signal drains: `/ready` turns 503, nothing new is
admitted, open streams finish until DRAIN_TIMEOUT_SECS, what is left ends with an error frame. A second signal ends
at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from frontend.app import create_app
from frontend.auth.api_keys import Keyring, check_access
from frontend.transport.request_id import SECURITY
from lifecycle.errors import LifecycleError
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import new_request_id
from lifecycle.settings import Settings
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType

log = logging.getLogger(__name__)

_LAST_WORDS_SECS = 2.0  # for error frames to leave the process


class Protocol(HttpToolsProtocol):
    """Gives each call its `ClientConnection`. What is no HTTP at all is answered like every other wrong call."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._on_gone: set[Callable[[], None]] = set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for on_gone in list(self._on_gone):
            on_gone()

    def send_400_response(self, msg: str) -> None:
        refusal = ApiError(ErrorType.VALIDATION, msg)
        body = refusal.body()
        headers = refusal.headers() | {
            "x-request-id": new_request_id("req"),
            **{name.decode(): value.decode() for name, value in SECURITY},
            "content-length": str(len(body)),
            "connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{head}\r\n".encode() + body)
        self.transport.close()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        ClientConnection(self.cycle, self._on_gone).put_into(self.scope)


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, tracker: Tracker) -> None:
        super().__init__(config)
        self._tracker = tracker
        self._draining: asyncio.Task[None] | None = None
        self.interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is None:
            self.interrupted = sig == signal.SIGINT
            self._tracker.draining = True
            self._draining = asyncio.get_running_loop().create_task(self._drain(), name="drain")
        else:
            self._tracker.end_streams(ErrorType.FRONTEND_LOST, "The frontend was shut down")
            super().handle_exit(sig, frame)

    async def _drain(self) -> None:
        """Bounded by DRAIN_TIMEOUT_SECS; ends the server."""
        tracker = self._tracker
        log.info("draining: %d requests, %d readers", len(tracker.owned), len(tracker.readers))
        try:
            await tracker.announce()
            await tracker.readers.wait_until_quiet(tracker.settings.drain_timeout_secs)
            await tracker.hand_over()
            await tracker.readers.wait_until_quiet(_LAST_WORDS_SECS)
        finally:
            self.should_exit = True  # whatever goes wrong: a process that was told to end must


def listen(host: str, port: int) -> socket.socket:
    """Bound before anything is announced, so that a port in use is an error of one line. Raises LifecycleError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as failure:
        listener.close()
        raise LifecycleError(f"cannot listen on {host}:{port}: {failure.strerror or failure}") from None
    return listener


def _url(host: str, port: int) -> str:
    """Where others find this frontend; an address that means "all of mine" tells them nothing."""
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(settings: Settings, host: str, port: int) -> None:
    """Until a signal, and raises KeyboardInterrupt after Ctrl-C.

    Raises LifecycleError or SettingsError with one line when it cannot start.
    """
    check_access(settings, host)
    listener = listen(host, port)
    try:
        url = _url(host, listener.getsockname()[1])
        async with Keyring.open(settings) as keyring, Tracker.open(settings, Metrics(), url) as tracker:
            config = uvicorn.Config(
                create_app(tracker, keyring),
                http=Protocol,
                loop="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,  # the application's
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
                backlog=4096,
                lifespan="off",
                server_header=False,
            )
            server = Server(config, tracker)
            log.info("frontend %s listens on %s", tracker.id, url)
            # uvicorn raises the signal again once it has ended; the drain was the answer to it already.
            previous = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
            for sig in previous:
                signal.signal(sig, signal.SIG_IGN)
            try:
                await server.serve(sockets=[listener])
            finally:
                for sig, handler in previous.items():
                    signal.signal(sig, handler)
            interrupted = server.interrupted
    finally:
        listener.close()
    if interrupted:
        raise KeyboardInterrupt
