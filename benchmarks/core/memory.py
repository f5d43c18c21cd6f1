"""Measure the memory that a finished request and each of its tokens take in Redis while they are retained."""

from __future__ import annotations

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from tests.servers import info

_SHAPES = ((0, 1), (500, 1), (500, 8))  # tokens of a request, tokens in an entry
_DAILY = 10_000_000
_RETENTION_SECS = 600  # the default


async def measure(quick: bool) -> list[Table]:
    """Finish many requests of each shape and divide the memory that Redis then uses."""
    count = 20 if quick else 200
    table = Table(
        "Memory of a finished request in Redis",
        ("tokens, and how many an entry", "KiB a request", "bytes a token", "GB at 10 million requests a day"),
        note=f"The last column counts what is retained for {_RETENTION_SECS} s, the default of RETENTION_SECS.",
    )
    empty = 0.0
    with bench.server() as redis:
        async with open_store(bench.settings_for(redis.url)) as store:
            await _finish(store, "warm-up", 1, 1)  # scripts and counters are in memory from now on
            for tokens, per_entry in _SHAPES:
                before = _used_bytes(redis)
                for number in range(count):
                    await _finish(store, f"request-{tokens}-{per_entry}-{number:016x}", tokens, per_entry)
                each = (_used_bytes(redis) - before) / count
                empty = empty or each
                of_a_token = (each - empty) / tokens if tokens else 0.0
                retained = each * _DAILY / 86_400 * _RETENTION_SECS / 1e9
                table.add(f"{tokens}, {per_entry} an entry" if tokens else "none", each / 1024, of_a_token, retained)
    return [table]


async def _finish(store: Store, rid: str, tokens: int, per_entry: int) -> None:
    await bench.admit(store, rid)
    await bench.start_queued(store, 1)
    await bench.stream(store, rid, tokens, per_entry=per_entry)
    await bench.complete(store, rid, tokens)


def _used_bytes(redis: EmbeddedRedis) -> int:
    """Return what the data takes, without the log of durations."""
    bench.forget_script_times(redis)
    return int(info(redis, "memory")["used_memory"])
