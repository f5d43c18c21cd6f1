"""One connection between a simulated process and Redis. To the process it is an asyncio transport."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from tests.simulation.process import Process, State

if TYPE_CHECKING:
    from tests.simulation.loop import VirtualLoop
    from tests.simulation.network import Network, Route

_FIN = b""  # stands for the end of a direction


class Connection(asyncio.Transport):
    """`write`, `close` and `abort` are called by the process, and `reset` and `vanish` by faults."""

    def __init__(
        self, network: Network, loop: VirtualLoop, process: Process, route: Route, protocol: asyncio.BaseProtocol
    ) -> None:
        super().__init__()
        self._network = network
        self._loop = loop
        self._process = process
        self._route = route
        self._protocol: Any = protocol
        self._session = network.server.open(self._from_server)
        self._closing = False  # the process has closed it, or has been told that it is closed
        self._vanished = False  # neither side hears of the other any more, and neither knows
        self._loses_reply = False  # the next part that the server sends
        self._stalled = False  # its server hangs, although others do not
        self._to_server: deque[bytes] = deque()  # stands still: cut off, or the server hangs
        self._to_client: deque[bytes] = deque()
        self._arrived: list[bytes] = []  # in the process's socket, not read yet
        self._server_at = self._client_at = 0.0  # when the last part arrives
        route.connections.append(self)

    # The transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing and data:
            self._send_to_server(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send_to_server(_FIN)
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    # To the server

    def _send_to_server(self, data: bytes) -> None:
        late_secs, route = 0.0, self._route
        if route.late_script and route.late_script in data and self._process.state is State.RUNNING:
            route.late_script, late_secs = b"", route.late_secs
            self._process.pause()
            self._loop.call_later(late_secs, self._process.resume, context=self._loop.own_context)
        self._server_at = max(self._server_at, self._loop.time() + self._network.delay(route) + late_secs)
        self._at(self._server_at, self._reach_server, data)

    def _at(self, when: float, call: Any, data: bytes) -> None:
        self._loop.call_at(when, call, data, context=self._loop.own_context)

    def _reach_server(self, data: bytes) -> None:
        if self._vanished:
            return
        if not self._route.to_server_open or self._network.hangs or self._stalled or self._to_server:
            self._to_server.append(data)
        else:
            self._serve(data)

    def _serve(self, data: bytes) -> None:
        route = self._route
        if data == _FIN:
            self._leave()
        elif route.lost_script and route.lost_script in data:
            route.lost_script, self._loses_reply = b"", True
            self._session.receive(data)
        else:
            self._session.receive(data)

    def _leave(self) -> None:
        self._session.close()
        self._vanished = True
        if self in self._route.connections:
            self._route.connections.remove(self)

    # To the process

    def _from_server(self, data: bytes) -> None:
        if self._loses_reply:
            self._loses_reply = False
            if self._route.lost_silently:
                self.vanish()
            else:
                self.reset()
            return
        self._client_at = max(self._client_at, self._loop.time() + self._network.delay(self._route))
        self._at(self._client_at, self._reach_client, data)

    def _reach_client(self, data: bytes) -> None:
        if self._vanished:
            return
        if not self._route.to_client_open or self._to_client:
            self._to_client.append(data)
        else:
            self._arrive(data)

    def _arrive(self, data: bytes) -> None:
        """Put data into the process's socket."""
        process = self._process
        if self._closing or process.state is State.DEAD:
            return
        self._arrived.append(data)
        if len(self._arrived) == 1:
            handle = asyncio.Handle(self._read, (), self._loop, process.context)
            if process.state is State.PAUSED:
                process.arrivals.append(handle)
            else:
                self._loop.make_ready([handle])

    def _read(self) -> None:
        data, self._arrived = b"".join(self._arrived), []
        if not self._closing:
            self._protocol.data_received(data)

    # Faults

    def on_route_change(self) -> None:
        """Deliver what stood still, in order, as far as it gets now."""
        hangs = self._network.hangs or self._stalled
        while self._to_server and self._route.to_server_open and not hangs and not self._vanished:
            self._serve(self._to_server.popleft())
        while self._to_client and self._route.to_client_open and not self._vanished:
            self._arrive(self._to_client.popleft())

    def stall(self, stalled: bool) -> None:
        """Let the server of this connection hang, or go on."""
        self._stalled = stalled
        self.on_route_change()

    def reset(self) -> None:
        """Close the connection; what is on its way to the process is lost, and the process is told."""
        if self._vanished:
            return
        self._leave()
        self._at(self._loop.time() + self._network.delay(self._route), self._tell_reset, b"")

    def _tell_reset(self, _: bytes) -> None:
        if not self._closing:
            self._closing = True
            handle = asyncio.Handle(
                self._protocol.connection_lost, (ConnectionResetError("reset"),), self._loop, self._process.context
            )
            if self._process.state is State.PAUSED:
                self._process.arrivals.append(handle)
            else:
                self._loop.make_ready([handle])

    def vanish(self) -> None:
        """Lose everything from now on, in both directions, without a word: a half-open connection.

        The server keeps the session, until the process has closed the connection and it is told much later.
        """
        self._vanished = True
        if self in self._route.connections:
            self._route.connections.remove(self)
        self._loop.call_later(60.0, self._session.close, context=self._loop.own_context)

    def process_died(self) -> None:
        """The system closes the sockets of a process that died."""
        if not self._closing:
            self._closing = True
            self._send_to_server(_FIN)
