"""`python -m benchmarks.membership`: what idle replicas cost Redis, and what a question about all of them costs.

The replicas are real frontends and workers without their HTTP side and without an engine's work, half of each, all in
this process: their leases, heartbeats, sweeps, blocking reads and subscriptions. They run under the default settings,
but for a lease that is long enough for this process to be late. They share what they have read of the list of replicas,
as the memory of one process does not suffice for a thousand lists of two thousand, and have no threads that watch their
event loops, of which a thousand would leave it no time.

    python -m benchmarks.membership --replicas 100 --replicas 500 --shards 1
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from statistics import median
from typing import Any

import uvloop

from benchmarks.__main__ import raise_file_limit
from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.aio import tasks
from lifecycle.execution.context import EngineContext
from lifecycle.execution.worker import Worker
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import cluster
from lifecycle.settings import Settings
from lifecycle.store import runner
from lifecycle.store.connect import Connections, open_store
from lifecycle.store.roster_cache import RosterCache
from lifecycle.store.transitions import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Role
from tests.joining import join
from tests.servers import info
from tests.waiting import wait_until

_LEASE_SECS = 600.0
_JOINING = 20  # replicas at once
_CALLS = 15
_READY_SECS = 60.0
_GROUP = '["m","chat_completions","stream"]'
_SERVER_CONFIG = {"maxclients": "19000", "save": ""}


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.membership", description=__doc__)
    parser.add_argument("--replicas", type=int, action="append", help="how many; may be repeated (100 to 2000)")
    parser.add_argument("--shards", type=int, action="append", help="how many; may be repeated (1 and 16)")
    parser.add_argument(
        "--secs", type=float, default=15.0, help="how long the idle replicas are measured (%(default)s)"
    )
    args = parser.parse_args(argv)
    raise_file_limit()
    logging.disable(logging.WARNING)  # at its end each replica loses its server
    uvloop.run(_print_all(args.replicas or [100, 500, 1000, 2000], args.shards or [1, 16], args.secs))
    return 0


async def _print_all(sizes: Sequence[int], shards: Sequence[int], secs: float) -> None:
    for table in await measure(sizes, shards, secs):
        print(f"{table.text()}\n", flush=True)


async def measure(sizes: Sequence[int], shards: Sequence[int], secs: float) -> list[Table]:
    """Measure idle replicas and questions about them, for each number of shards and of replicas."""
    idle = Table(
        f"Idle replicas on one Redis server, {secs:g} s each",
        (
            "replicas x shards",
            "Redis, ms/s",
            "a heartbeat, µs",
            "commands/s",
            "KiB/s out",
            "connections",
            "this process, ms/s",
            "on time",
        ),
        note="A heartbeat: Redis's CPU time, divided by the heartbeats that came. On time: how many of those due.",
    )
    asked = Table(
        "Questions about them, nothing else going on",
        ("replicas x shards", "/metrics, ms", "least, ms", "commands", "/v1/inflight, ms", "least, ms", "commands"),
        note="The cluster's part of each, asked again and again: the median and the least.",
    )
    for count in shards:
        for size in sizes:
            label = f"{size:,} x {count}"
            print(f"{label} …", file=sys.stderr, flush=True)
            with EmbeddedRedis(port=0, config=_SERVER_CONFIG) as redis:
                idle.add(label, *await _idle(redis, _settings(redis, count), size, secs))
            print(f"{idle.text()}\n", file=sys.stderr, flush=True)
            with EmbeddedRedis(port=0, config=_SERVER_CONFIG) as redis:
                asked.add(label, *await _questions(redis, _settings(redis, count), size))
    return [idle, asked]


def _settings(redis: EmbeddedRedis, shards: int) -> Settings:
    return bench.settings_for(
        redis.url, shards=shards, lease_secs=_LEASE_SECS, redis_timeout_secs=30.0, log_level="error"
    )


async def _idle(
    redis: EmbeddedRedis, settings: Settings, size: int, secs: float
) -> tuple[float, float, float, float, int, float, str]:
    replicas: list[asyncio.Task[None]] = []
    shared = RosterCache()
    setattr(runner, RosterCache.__name__, lambda: shared)
    try:
        for begin in range(0, size, _JOINING):
            some = range(begin, min(begin + _JOINING, size))
            replicas += await asyncio.gather(*(_join(settings, number) for number in some))
        await asyncio.sleep(settings.heartbeat_secs)
        before, began, cpu_began = _account(redis), time.monotonic(), time.process_time()
        await asyncio.sleep(secs)
        after, took, cpu = _account(redis), time.monotonic() - began, time.process_time() - cpu_began
        connections = int(info(redis, "clients")["connected_clients"]) - 1
    finally:
        setattr(runner, RosterCache.__name__, RosterCache)
        redis.kill()  # nobody waits for the replicas to leave
        await tasks.end(replicas)
    gone = {name: after[name] - before[name] for name in after}
    redis_ms = gone["cpu_ms"] / took
    due = size * took / settings.heartbeat_secs
    return (
        redis_ms,
        gone["cpu_ms"] * 1000 / max(1, gone["heartbeats"]),
        gone["commands"] / took,
        gone["bytes_out"] / took / 1024,
        connections,
        cpu * 1000 / took,
        f"{gone['heartbeats'] / due:.0%}",
    )


def _account(redis: EmbeddedRedis) -> dict[str, float]:
    cpu, stats = info(redis, "cpu"), info(redis, "stats")
    return {
        "cpu_ms": (float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])) * 1000,
        "commands": float(stats["total_commands_processed"]),
        "bytes_out": float(stats["total_net_output_bytes"]),
        "heartbeats": float(bench.calls_of(redis).get("pexpire", 0)),  # each heartbeat sets one TTL
    }


async def _engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    yield ""


async def _join(settings: Settings, number: int) -> asyncio.Task[None]:
    """Return the task of a replica that has joined."""
    joined = asyncio.Event()
    run = _frontend if number % 2 else _worker
    task = asyncio.create_task(run(settings, joined), name=f"replica {number}")
    waiting = asyncio.create_task(joined.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    await tasks.end((waiting,))
    return task


async def _frontend(settings: Settings, joined: asyncio.Event) -> None:
    async with Tracker.open(settings, Metrics(), "http://frontend.test", retry_for_secs=60.0):
        joined.set()
        await asyncio.Event().wait()


class _NoMonitor:
    """Stand in for the thread that watches an event loop."""

    async def run(self) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()


async def _worker(settings: Settings, joined: asyncio.Event) -> None:
    async with Connections.open(settings) as connections:
        worker = Worker(settings, connections, bench.MODEL, _engine)
        setattr(worker, "_monitor", _NoMonitor())  # noqa: B010
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(retry_for_secs=60.0))
            await wait_until(lambda: worker.state == "ready", _READY_SECS, "a worker that is ready")
            joined.set()


async def _questions(
    redis: EmbeddedRedis, settings: Settings, size: int
) -> tuple[float, float, int, float, float, int]:
    async with open_store(settings) as store:
        await _populate(store, size)
        return *await _asked(redis, lambda: cluster.snapshot(store, details=False)), *await _asked(
            redis, lambda: cluster.inflight(store)
        )


async def _populate(store: Store, size: int) -> None:
    """Let so many replicas hold leases, and each frontend some requests in each shard."""
    for number in range(size):
        role = Role.FRONTEND if number % 2 else Role.WORKER
        replica, models = f"{role.value}-{number:012x}", [bench.MODEL] * (role is Role.WORKER)
        await join(store, replica, role, {"models": models, "started_at": 1.0, "counted": {}}, models)
        if role is Role.FRONTEND:
            await store.commands.execute_many(
                command
                for prefix in store.keys.prefixes
                for command in (
                    ("HSET", f"{prefix}counts:{replica}", _GROUP, 1),
                    ("HSET", f"{prefix}inflight:{replica}", "r", ""),
                    ("HINCRBY", f"{prefix}group_counts", _GROUP, 1),
                )
            )


async def _asked(redis: EmbeddedRedis, ask: Callable[[], Awaitable[object]]) -> tuple[float, float, int]:
    """Return the median and the least duration in ms, and the commands of one question, those in scripts included."""
    await ask()
    took: list[float] = []
    bench.reset_counters(redis)
    for _ in range(_CALLS):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1000)
    return median(took), min(took), sum(bench.calls_of(redis).values()) // _CALLS


if __name__ == "__main__":
    sys.exit(main())
