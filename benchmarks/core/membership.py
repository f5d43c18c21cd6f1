"""Measure what one call about the replicas costs Redis, by the number of replicas, with one client.

`python -m benchmarks.membership` measures whole replicas.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.joining import join

_CALLS = 15
_SERVED = "meta-llama/Llama-3.1-70B"
_ABOUT = {
    "host": "ip-10-0-0-1.example.internal",
    "pid": 12345,
    "started_at": 1764348543.1,
    "version": "1.0.0",
    "state": "ready",
    "url": "http://10.0.0.1:8000",
    "counted": {"output_tokens": 123456, "disconnects": 12},
    "models": [_SERVED],
    "concurrency": 64,
    "stuck": 0,
}


async def measure(quick: bool) -> list[Table]:
    """Measure the calls by the number of replicas, and a sweep by the number of known models."""
    with bench.server() as redis:
        async with open_store(bench.settings_for(redis.url)) as store:
            calls = await _calls(redis, store, (20, 50) if quick else (100, 500, 1000, 2000))
        async with open_store(bench.settings_for(redis.url, namespace="models")) as store:
            sweeps = await _sweeps(redis, store, (1, 10) if quick else (1, 10, 100, 1000))
    return [calls, sweeps]


async def _calls(redis: EmbeddedRedis, store: Store, sizes: tuple[int, ...]) -> Table:
    table = Table(
        "Calls about replicas, half of which are frontends",
        ("replicas", "heartbeat, µs", "reconcile, µs", "expire, µs", "count_inflight, µs", "members, µs", "roster, µs"),
    )
    joined, worker = 0, f"worker-{0:012x}"
    for replicas in sizes:
        for number in range(joined, replicas):
            role = Role.FRONTEND if number % 2 else Role.WORKER
            await join(store, f"{role.value}-{number:012x}", role, _ABOUT, [_SERVED])
        joined = replicas
        measured = (
            lambda: store.heartbeat(worker, Role.WORKER, _ABOUT, [_SERVED]),
            lambda: store.reconcile_shard(0, worker, Role.WORKER, models=[_SERVED]),
            lambda: store.expire(0),
            lambda: store.count_inflight(0),
            lambda: store.count_held(0, Role.FRONTEND),
            store.roster,
        )
        table.add(str(replicas), *[await _mean_us(redis, call) for call in measured])
    return table


async def _sweeps(redis: EmbeddedRedis, store: Store, sizes: tuple[int, ...]) -> Table:
    table = Table("Sweeps of a shard in which nothing is to be done", ("known models", "sweep of 100 models, µs"))
    models: list[str] = []
    for size in sizes:
        new = [f"model-{number}" for number in range(len(models), size)]
        models += new
        await join(store, bench.WORKER, Role.WORKER, _ABOUT, new)
        table.add(str(size), await _mean_us(redis, lambda: store.sweep(0)))
    return table


async def _mean_us(redis: EmbeddedRedis, call: Callable[[], Awaitable[object]]) -> float:
    await call()  # the first one loads the script
    bench.forget_script_times(redis)
    for _ in range(_CALLS):
        await call()
    return bench.script_times(redis).mean_us
