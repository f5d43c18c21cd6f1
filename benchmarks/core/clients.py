"""The project's own Redis client beside redis-py: calls a second and this process's CPU time for each call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import redis.asyncio as redis_py

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.store.redis import Commands, make_client

_CALLERS = 256
_ALONE_CALLS = 300
_CONNECTIONS = 32
_BATCH = 512
Call = Callable[[], Awaitable[object]]


async def measure(quick: bool) -> list[Table]:
    """Let 256 callers send GET after GET through each client in turn; then one caller alone."""
    secs = 0.2 if quick else 1.5
    table = Table(
        f"Redis clients, {_CALLERS} callers of GET in one process",
        ("client", "calls/s", "CPU-µs a call", "alone, p50 µs"),
    )
    with bench.server() as server:
        for name, opened in (
            ("this project's", _own(server.url)),
            ("redis-py, a pool", _pool(server.port)),
            ("redis-py, one pipeline", _pipeline(server.port)),
        ):
            async with opened as call:
                table.add(name, *await _figures(call, secs))
    return [table]


async def _figures(call: Call, secs: float) -> tuple[float, float, float]:
    await call()
    count = 0
    stop_at = time.monotonic() + secs

    async def caller() -> None:
        nonlocal count
        while True:
            await call()
            count += 1
            if time.monotonic() >= stop_at:
                return

    began, cpu_began = time.monotonic(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    took, cpu = time.monotonic() - began, time.process_time() - cpu_began
    alone: list[float] = []
    for _ in range(_ALONE_CALLS):
        asked_at = time.perf_counter()
        await call()
        alone.append(time.perf_counter() - asked_at)
    return count / took, cpu / count * 1e6, median(alone) * 1e6


@asynccontextmanager
async def _own(url: str) -> AsyncIterator[Call]:
    commands = Commands(make_client(url, socket_timeout_secs=2.0))
    yield lambda: commands.execute("GET", "key")
    await commands.aclose()


@asynccontextmanager
async def _pool(port: int) -> AsyncIterator[Call]:
    pool = redis_py.BlockingConnectionPool(port=port, protocol=2, max_connections=_CONNECTIONS, timeout=20)
    client = redis_py.Redis(connection_pool=pool)
    yield lambda: client.get("key")
    await client.aclose()
    await pool.disconnect()


@asynccontextmanager
async def _pipeline(port: int) -> AsyncIterator[Call]:
    """Gather calls while a pipeline is under way, as the project's client does, but on redis-py's pipeline."""
    client = redis_py.Redis(port=port, protocol=2, single_connection_client=True)
    waiting: list[asyncio.Future[Any]] = []
    flushing: asyncio.Task[None] | None = None

    async def flush() -> None:
        while waiting:
            batch = waiting[:_BATCH]
            del waiting[:_BATCH]
            pipeline = client.pipeline(transaction=False)
            for _ in batch:
                pipeline.get("key")
            for future, reply in zip(batch, await pipeline.execute(raise_on_error=False), strict=True):
                future.set_result(reply)

    async def call() -> object:
        nonlocal flushing
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        if flushing is None or flushing.done():
            flushing = asyncio.create_task(flush())
        return await future

    yield call
    await client.aclose()
