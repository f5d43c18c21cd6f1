"""Measure the cost of leases, rosters and sweeps at the Redis node of the control slot, by the number of replicas.

One client measures single calls with so many replicas in Redis. The load of the whole cluster is calculated from the
rates of the default settings: a heartbeat every 3 s, a sweep every 2.7 s on average (3 s less a random part).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.servers import info

_HEARTBEAT_SECS = 3.0
_SWEEP_SECS = 2.7
_SHARDS = 16
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
    """Measure the control slot by the number of replicas, and a shard's upkeep by the number of known models."""
    with bench.server() as redis:
        async with open_store(bench.settings_for(redis.url)) as store:
            control = await _control(redis, store, (20, 50) if quick else (100, 200, 500, 1000, 2000))
        async with open_store(bench.settings_for(redis.url, namespace="models")) as store:
            shard = await _shard(redis, store, (1, 10) if quick else (1, 10, 100, 1000))
    return [control, shard]


async def _control(redis: EmbeddedRedis, store: Store, sizes: tuple[int, ...]) -> Table:
    table = Table(
        "The control slot, half of the replicas frontends",
        (
            "replicas",
            "heartbeat, µs",
            "expire, µs",
            "roster, µs",
            "roster, KiB",
            "cores of its node",
            "MB/s out of its node",
        ),
    )
    joined = 0
    for replicas in sizes:
        for number in range(joined, replicas):
            role = Role.FRONTEND if number % 2 else Role.WORKER
            await store.heartbeat(f"{role.value}-{number:012x}", role, _ABOUT, [_SERVED])
        joined = replicas
        heartbeat = await _mean_us(redis, lambda: store.heartbeat("frontend-000000000001", Role.FRONTEND, _ABOUT, []))
        expire = await _mean_us(redis, store.expire)
        roster = await _mean_us(redis, store.roster)
        before = _bytes_out(redis)
        await store.roster()
        size = _bytes_out(redis) - before
        rosters = replicas / _SWEEP_SECS + replicas / 2 / _HEARTBEAT_SECS  # a second; frontends ask at heartbeats too
        busy_us = replicas / _HEARTBEAT_SECS * heartbeat + replicas / _SWEEP_SECS * expire + rosters * roster
        table.add(str(replicas), heartbeat, expire, roster, size / 1024, busy_us / 1e6, rosters * size / 1e6)
    return table


async def _shard(redis: EmbeddedRedis, store: Store, sizes: tuple[int, ...]) -> Table:
    table = Table(
        "A shard in which nothing is to be done",
        ("known models", "sweep, µs", f"cores, 100 replicas x {_SHARDS} shards", "cores, 2,000 replicas x 64 shards"),
    )
    models: list[str] = []
    for size in sizes:
        for number in range(len(models), size):
            models.append(f"model-{number}")
            for queue in ("queue:", "retry:"):
                key = store.keys.prefixes[0] + queue + models[-1]
                await store.command("XGROUP", "CREATE", key, "workers", "0", "MKSTREAM")
        sweep = await _mean_us(redis, lambda: store.sweep(0, [], models))
        small, large = (count / _SWEEP_SECS * sweep / 1e6 for count in (100 * _SHARDS, 2000 * 64))
        table.add(str(size), sweep, small, large)
    await store.heartbeat(bench.WORKER, Role.WORKER, _ABOUT, [])
    reconcile = await _mean_us(redis, lambda: store.reconcile_shard(0, bench.WORKER, Role.WORKER))
    rate = 2000 * 64 / _HEARTBEAT_SECS
    cores = rate * reconcile / 1e6
    table.note = f"reconcile one shard: {reconcile:.0f} µs; 2,000 replicas x 64 shards: {cores:.1f} cores"
    return table


async def _mean_us(redis: EmbeddedRedis, call: Callable[[], Awaitable[object]]) -> float:
    await call()  # the first one loads the script
    bench.forget_script_times(redis)
    for _ in range(_CALLS):
        await call()
    return bench.script_times(redis).mean_us


def _bytes_out(redis: EmbeddedRedis) -> int:
    return int(info(redis, "stats")["total_net_output_bytes"])
