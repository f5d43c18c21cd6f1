"""Measure the costs that every design has: `python -m benchmarks.floor`.

The CPU time of the benchmark's own engine at 200 streams of 20 tokens/s with nobody to send its tokens to, and of one
small write to a socket for each token. Both are part of every system's figure.
"""

from __future__ import annotations

import asyncio
import socket
import time

import uvloop

from benchmarks.engines import stamped
from lifecycle.execution.context import EngineContext

_STREAMS = 200
_TOKENS = 100
_TOKENS_PER_SEC = 20
_EVENT = b"x" * 250  # about what an event of one token takes


async def engine_us() -> float:
    """Return the CPU time of a token in the engine, its timer included, in microseconds."""

    async def run(number: int) -> None:
        request = {"messages": [{"content": f"paced {_TOKENS} {_TOKENS_PER_SEC}"}]}
        async for _ in stamped(request, EngineContext(f"r{number}", 1)):
            pass

    began = time.process_time()
    await asyncio.gather(*(run(number) for number in range(_STREAMS)))
    return (time.process_time() - began) / (_STREAMS * _TOKENS) * 1e6


async def write_us() -> float:
    """Return the CPU time of a write to a loopback connection, the kernel's included, in microseconds."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=_STREAMS)
    near = [socket.create_connection(listener.getsockname()) for _ in range(_STREAMS)]
    far = [listener.accept()[0] for _ in near]
    loop = asyncio.get_running_loop()
    transports = [(await loop.create_connection(asyncio.Protocol, sock=sock))[0] for sock in near]
    began = time.process_time()
    for _ in range(_TOKENS):
        for transport in transports:
            transport.write(_EVENT)
        await asyncio.sleep(0)
    took = time.process_time() - began
    for sock in (*far, listener):
        sock.close()
    for transport in transports:
        transport.abort()
    return took / (_STREAMS * _TOKENS) * 1e6


async def main() -> None:
    print(f"the engine alone: {await engine_us():.1f} CPU-µs per token")
    print(f"one small write to a socket: {await write_us():.1f} CPU-µs")


if __name__ == "__main__":
    uvloop.run(main())
