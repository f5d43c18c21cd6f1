"""A TCP client that writes and reads bytes, for what no HTTP client would send."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.waiting import wait_until

_TCP_TABLE = Path("/proc/net/tcp")


class Connection:
    """A TCP client that keeps everything it has received in `received`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = b""
        self.closed = False  # by the server

    async def send(self, data: bytes) -> None:
        """Write, and wait until the kernel has room for more. Raises OSError when the server has closed."""
        self._writer.write(data)
        await self._writer.drain()

    async def taken(self) -> None:
        """Wait until the server has read all that was sent, so that what is sent next is a segment of its own."""
        local, remote = (self._writer.get_extra_info(name)[1] for name in ("sockname", "peername"))
        await wait_until(lambda: _unread_bytes(remote, local) == 0, what="a server that reads what was sent")

    async def read_until(self, marker: bytes, count: int = 1, within_secs: float = 3.0) -> bytes:
        """Read until `marker` came `count` times. Fail with what came instead when it does not."""
        if not await self._read(lambda: self.received.count(marker) >= count, within_secs):
            state = "the server closed" if self.closed else f"nothing more came within {within_secs:g} s"
            raise AssertionError(f"no {marker!r} ({count} times); {state}; received: {self.received[:400]!r}")
        return self.received

    async def read_to_end(self, within_secs: float = 5.0) -> bytes:
        """Read until the server closes. Fail with what came when it does not."""
        if not await self._read(lambda: False, within_secs) and not self.closed:
            raise AssertionError(f"still open after {within_secs:g} s; received: {self.received[:400]!r}")
        return self.received

    async def _read(self, enough: Callable[[], bool], within_secs: float) -> bool:
        give_up_at = time.monotonic() + within_secs
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                while not enough() and not self.closed:
                    try:
                        more = await self._reader.read(65_536)
                    except ConnectionError:
                        more = b""
                    self.received += more
                    self.closed = not more
        except TimeoutError:
            return False
        return enough()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # the server has reset it; it is closed all the same


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Connect to a port of this machine."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield connection
    finally:
        await connection.close()


def _unread_bytes(local_port: int, remote_port: int) -> int:
    """Return how much has arrived at a socket that its process has not read; 0 where there is no such table."""
    if not _TCP_TABLE.exists():
        return 0
    for line in _TCP_TABLE.read_text().splitlines()[1:]:
        fields = line.split()
        ports = tuple(int(address.split(":")[1], 16) for address in fields[1:3])
        if ports == (local_port, remote_port):
            return int(re.split(":", fields[4])[1], 16)
    return 0
