"""Measure how long large request bodies keep Redis busy, and how long another client's PING waits meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.aio import tasks
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.joining import join

_MEGABYTE = 1_000_000
_PAUSE_SECS = 0.001


async def measure(quick: bool) -> list[Table]:
    """Admit and start one request of each size."""
    table = Table(
        "Large bodies",
        ("MB", "admit, ms", "start, ms", "longest script, ms", "longest PING of another client, ms"),
        note="The PING's time includes the lateness of this process, which sends the body meanwhile.",
    )
    with bench.server() as redis:
        chosen = bench.settings_for(redis.url)
        async with open_store(chosen) as store, open_store(chosen) as other:
            await join(store, bench.FRONTEND, Role.FRONTEND, {}, [])
            for size in (1,) if quick else (1, 4, 10):
                body = b"x" * (size * _MEGABYTE)
                bench.forget_script_times(redis)
                waits: list[float] = []
                pinging = asyncio.create_task(_ping(other, waits))
                admitted = await _took_ms(partial(bench.admit, store, f"body-{size}", body=body))
                started = await _took_ms(lambda: bench.start_queued(store, 1))
                await tasks.end((pinging,))
                table.add(str(size), admitted, started, bench.script_times(redis).worst_ms, max(waits, default=0.0))
    return [table]


async def _took_ms(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def _ping(store: Store, waits_ms: list[float]) -> None:
    while True:
        waits_ms.append(await _took_ms(lambda: store.command("PING")))
        await asyncio.sleep(_PAUSE_SECS)
