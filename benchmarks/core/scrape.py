"""Measure a scrape of a frontend's `/metrics` with many replicas: commands, CPU time, a blocked event loop."""

from __future__ import annotations

import asyncio
import time

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.aio import tasks
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import cluster
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.joining import join

_SCRAPE_SECS = 15.0  # how often Prometheus asks each frontend by default
_TICK_SECS = 0.001
_LABELS, _QUEUED = '["m","chat_completions","stream"]', 3


async def measure(quick: bool) -> list[Table]:
    """Take the cluster's part of a scrape once for each size of cluster."""
    sizes = ((5, 5, 4), (10, 10, 16)) if quick else ((10, 10, 16), (100, 100, 16), (300, 300, 64))
    table = Table(
        "One scrape of /metrics, the cluster's part",
        ("frontends x workers x shards", "commands", "ms", "CPU ms", "loop blocked, ms", "commands/s, all frontends"),
        note=f"The last column: every frontend is scraped each {_SCRAPE_SECS:.0f} s.",
    )
    with bench.server() as redis:
        for frontends, workers, shards in sizes:
            chosen = bench.settings_for(redis.url, shards=shards, namespace=f"size-{frontends}-{shards}")
            commands, took_ms, cpu_ms, blocked_ms = await _scrape(redis, chosen, frontends, workers)
            rate = commands * frontends / _SCRAPE_SECS
            table.add(f"{frontends} x {workers} x {shards}", commands, took_ms, cpu_ms, blocked_ms, rate)
    return [table]


async def _scrape(
    redis: EmbeddedRedis, settings: Settings, frontends: int, workers: int
) -> tuple[int, float, float, float]:
    """Return the number of commands, then in ms: the time elapsed, the CPU time, the longest block of the loop."""
    async with open_store(settings) as store:
        await _join(store, frontends, workers)
        lateness = [0.0]
        ticking = asyncio.create_task(_tick(lateness))
        await asyncio.sleep(_TICK_SECS)  # until the ticks have begun
        bench.reset_counters(redis)
        lateness.clear()
        began, cpu_began = time.perf_counter(), time.process_time()
        await cluster.snapshot(store, details=False)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        await asyncio.sleep(_TICK_SECS)  # the last tick may still be late
        await tasks.end((ticking,))
        commands = sum(bench.calls_of(redis).values())
        return commands, took * 1000, cpu * 1000, max(lateness, default=0.0) * 1000


async def _join(store: Store, frontends: int, workers: int) -> None:
    for number in range(frontends):
        frontend = f"frontend-{number:012x}"
        await join(store, frontend, Role.FRONTEND, {"models": [], "started_at": 1.0, "counted": {}})
        await store.commands.execute_many(
            ("HINCRBY", f"{prefix}{name}", _LABELS, _QUEUED)
            for prefix in store.keys.prefixes
            for name in (f"counts:{frontend}", "group_counts")
        )
    for number in range(workers):
        worker = f"worker-{number:012x}"
        await join(store, worker, Role.WORKER, {"models": [bench.MODEL], "started_at": 1.0}, [bench.MODEL])


async def _tick(lateness: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_TICK_SECS)
        lateness.append(time.perf_counter() - began - _TICK_SECS)
