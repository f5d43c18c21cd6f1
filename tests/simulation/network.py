"""The network between simulated processes and a simulated Redis: connections, and what may happen to them.

Each direction of a connection delivers in order. Nothing is ordered between connections: each part has a delay of its
own.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tests.simulation.connection import Connection
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import current
from tests.simulation.server.server import Server

_REFUSED = "Connect call failed"


class Route:
    """The way between one process and the server, with its faults."""

    def __init__(self) -> None:
        self.delay_factor = 1.0
        self.to_server_open = True
        self.to_client_open = True
        self.lost_script = b""  # the SHA1 of a script whose next reply is lost
        self.late_script = b""  # the SHA1 of a script before which the process is stopped when it sends it next
        self.late_secs = 0.0
        self.lost_silently = False  # the connection is not closed then
        self.connections: list[Connection] = []
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def open(self) -> bool:
        return self.to_server_open and self.to_client_open

    async def wait_open(self) -> None:
        while not self.open:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def set_open(self, *, to_server: bool, to_client: bool) -> None:
        """Cut or mend the directions. What was on the way is sent again when they are mended, as TCP does."""
        self.to_server_open, self.to_client_open = to_server, to_client
        for connection in list(self.connections):
            connection.on_route_change()
        if self.open:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)


class Network:
    """Connects processes with the server. `accepts` is False while the server's host refuses connections."""

    def __init__(self, loop: VirtualLoop, server: Server, dice: random.Random, delay_secs: float) -> None:
        """`delay_secs` is the usual delay of one part in one direction."""
        self.server = server
        self.accepts = True
        self.hangs = False  # the server's process is stopped
        self._loop = loop
        self._dice = dice
        self._delay_secs = delay_secs
        self._routes: dict[str, Route] = {}
        loop.connect = self._connect

    def route(self, name: str) -> Route:
        """Return the route of the process of this name."""
        return self._routes.setdefault(name, Route())

    def delay(self, route: Route) -> float:
        """Return the delay of one part: mostly the usual one, seldom much longer."""
        factor = 10.0 if self._dice.random() < 0.02 else 0.5 + self._dice.random()
        return self._delay_secs * factor * route.delay_factor

    async def _connect(self, protocol_factory: Any, host: str, port: int) -> Any:
        process = current()
        assert process is not None, "only a process connects"
        route = self.route(process.name)
        await asyncio.sleep(self.delay(route))
        await route.wait_open()
        await asyncio.sleep(self.delay(route))
        if not self.accepts:  # asked last: a server that has gone meanwhile must not execute anything
            raise ConnectionRefusedError(111, f"{_REFUSED} ('{host}', {port})")
        protocol = protocol_factory()
        connection = Connection(self, self._loop, process, route, protocol)
        process.on_crash.append(connection.process_died)
        protocol.connection_made(connection)
        return connection, protocol

    # Faults

    def connections(self) -> list[Connection]:
        return [connection for route in self._routes.values() for connection in route.connections]

    def reset_all(self) -> None:
        """Close every connection, as when the server's process ends."""
        for connection in self.connections():
            connection.reset()

    def hang(self) -> None:
        """Stop the server's process: it accepts connections and answers nothing."""
        self.hangs = True

    def wake(self) -> None:
        """Let the server's process go on."""
        self.hangs = False
        for connection in self.connections():
            connection.on_route_change()
