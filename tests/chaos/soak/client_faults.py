"""Send what a hostile client sends to a frontend."""

from __future__ import annotations

import asyncio
import random
from urllib.parse import urlsplit

from tests.chaos.bench import Bench
from tests.chaos.soak.fault import Fault, Struck

_CONNECTIONS = 10
_LINE = b"x-padding: " + b"x" * 4000 + b"\r\n"
_HALF_A_CALL = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{"


class ClientFaults:
    """Make calls that never end, while everybody else's calls must be served."""

    def __init__(self, bench: Bench, dice: random.Random) -> None:
        self._bench = bench
        self._dice = dice

    def faults(self) -> list[Fault]:
        return [Fault("endless heads", self._endless_heads), Fault("half calls", self._half_calls)]

    async def _endless_heads(self) -> Struck:
        victim = self._dice.choice(self._bench.frontends)
        secs = self._dice.uniform(2.0, 4.0)
        refused = await asyncio.gather(*(_endless_head(victim.url, secs) for _ in range(_CONNECTIONS)))
        if not all(refused):
            self._bench.invariants.note(f"{victim.log.stem} has taken a head without end for {secs:.1f} s")
        return Struck(f"{victim.log.stem}, {_CONNECTIONS} connections")

    async def _half_calls(self) -> Struck:
        victim = self._dice.choice(self._bench.frontends)
        secs = self._dice.uniform(0.5, 3.0)
        await asyncio.gather(*(_half_a_call(victim.url, secs) for _ in range(_CONNECTIONS)))
        return Struck(f"{victim.log.stem}, {_CONNECTIONS} connections, {secs:.1f} s")


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def _endless_head(url: str, secs: float) -> bool:
    """Return whether the connection was closed before the time was over."""
    reader, writer = await _connect(url)
    closed = asyncio.create_task(reader.read(), name="reads until the server closes")
    try:
        async with asyncio.timeout(secs):
            writer.write(b"GET /live HTTP/1.1\r\nhost: localhost\r\n")
            while not closed.done():
                writer.write(_LINE)
                await writer.drain()
                await asyncio.sleep(0.001)
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        writer.transport.abort()
        await asyncio.gather(closed, return_exceptions=True)
    return True


async def _half_a_call(url: str, secs: float) -> None:
    _, writer = await _connect(url)
    try:
        writer.write(_HALF_A_CALL)
        await writer.drain()
        await asyncio.sleep(secs)
    finally:
        writer.transport.abort()
