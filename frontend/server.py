"""Run one frontend with uvicorn, and drain it before the process ends.

uvicorn alone would wait for open streams without a limit, and would end at once on SIGHUP. Here the first signal starts
the drain, and so does an operator's instruction: `/ready` answers 503, no request is admitted, every response closes
its connection, and open streams may finish within DRAIN_TIMEOUT_SECS; those that remain end with an error frame. A
second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from types import FrameType

import uvicorn

from frontend.app import create_app
from frontend.edge.connections import EdgeConnections
from frontend.edge.cors import Cors
from frontend.edge.descriptors import most_connections, raise_limit, warn_if_low
from frontend.edge.http_protocol import EdgeConfig, HttpProtocol
from frontend.edge.refusals import Refusals
from lifecycle.aio.vanished_peer import notice_vanished_peer
from lifecycle.errors import LifecycleError
from lifecycle.fastapi.api_keys import Keyring, check_access
from lifecycle.header_selection import HeaderSelection
from lifecycle.settings import Settings
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType
from lifecycle.webhooks.config import WebhookConfig

log = logging.getLogger(__name__)

_VANISHED_FACTOR = 1.5
_ERROR_FRAMES_SECS = 2.0  # for sending the error frames of the streams that remain


class Server(uvicorn.Server):
    """Serve until a signal, drain, then end."""

    def __init__(self, config: EdgeConfig, tracker: Tracker) -> None:
        super().__init__(config)
        self._tracker = tracker
        self._connections = config.shared
        self._draining: asyncio.Task[None] | None = None
        self._signalled = False
        self.interrupted = False

    def drain(self) -> None:
        """Begin to drain, if that has not begun; the server then ends."""
        if self._draining is None:
            self._tracker.draining = self._connections.draining = True
            self._draining = asyncio.get_running_loop().create_task(self._drain(), name="drain")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._signalled:
            self._signalled, self.interrupted = True, sig == signal.SIGINT
            self.drain()
        else:
            self._tracker.end_streams(ErrorType.FRONTEND_LOST, "The frontend was shut down")
            super().handle_exit(sig, frame)

    async def _drain(self) -> None:
        """Wait for open streams, for at most DRAIN_TIMEOUT_SECS, hand over the rest and end the server."""
        tracker = self._tracker
        for connection in self.server_state.connections:
            if isinstance(connection, HttpProtocol):
                connection.close_after_response()
        log.info("draining with %d inflight requests and %d readers", len(tracker.owned), len(tracker.readers))
        try:
            await tracker.announce()
            await tracker.readers.wait_until_quiet(tracker.settings.drain_timeout_secs)
            await tracker.hand_over()
            await tracker.readers.wait_until_quiet(_ERROR_FRAMES_SECS)
        finally:
            self.should_exit = True  # also after an error: the process must end


def listen(host: str, port: int) -> socket.socket:
    """Bind the socket before the frontend joins the cluster. Raises LifecycleError when the port is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as failure:
        listener.close()
        raise LifecycleError(
            f"cannot listen on {host}:{port}: {failure.strerror or failure}; choose another --host or --port"
        ) from None
    return listener


def _url(host: str, port: int) -> str:
    """Return the URL that is shown for this frontend, with the host name where it listens on all interfaces."""
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(tracker: Tracker, keyring: Keyring | None, connections: int = 0) -> Server:
    """Return the server of a frontend, which `serve(sockets=…)` runs. It takes so many connections; 0: any number."""
    shared, refusals = EdgeConnections(tracker.settings, connections), Refusals(tracker.metrics)
    cors = Cors(tracker.settings)
    app = create_app(tracker, keyring, refusals, cors)
    return Server(EdgeConfig(app, shared, refusals, cors), tracker)


async def serve(settings: Settings, host: str, port: int) -> None:
    """Serve on this address until a signal. Port 0 chooses a free port.

    Raises LifecycleError or SettingsError, with a message of one line, when the frontend cannot start. Raises
    KeyboardInterrupt after Ctrl-C.
    """
    check_access(settings, host)
    WebhookConfig.of(settings)  # raises SettingsError before Redis is looked for
    if refused := HeaderSelection.parse(settings.forward_headers).refused:
        log.warning("LIFECYCLE_FORWARD_HEADERS names %s, which are never forwarded; remove them", ", ".join(refused))
    listener = listen(host, port)
    try:
        # Later than the limit for slow clients, so that a client that only reads nothing gets that error.
        notice_vanished_peer(listener, _VANISHED_FACTOR * settings.slow_consumer_secs)
        url = _url(host, listener.getsockname()[1])
        async with Keyring.open(settings) as keyring, Tracker.open(settings, Metrics(), url) as tracker:
            limit = raise_limit()
            connections = most_connections(limit)
            warn_if_low(limit, connections, settings.max_readers)
            server = make_server(tracker, keyring, connections)
            tracker.drain_with(server.drain)
            log.info("frontend %s listens on %s", tracker.id, url)
            # uvicorn raises the signal again after it has ended, but the drain has already handled it.
            previous = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
            for sig in previous:
                signal.signal(sig, signal.SIG_IGN)
            if previous[signal.SIGHUP] != signal.SIG_IGN:  # `nohup` starts a process that must go on to ignore it
                signal.signal(signal.SIGHUP, server.handle_exit)
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
