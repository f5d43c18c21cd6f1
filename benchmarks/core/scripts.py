"""Measure how long the longest scripts keep Redis busy, by Redis's own clock.

While a script runs, every other call waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.queries import cluster
from lifecycle.store.connect import open_store
from lifecycle.store.results import ExpiredReplica
from lifecycle.store.transitions import Store
from lifecycle.tokens.writer import FLUSH_BYTES, FLUSH_REQUESTS
from lifecycle.types import Role
from tests.joining import join

_TEXT = "token"
_FLUSH_TOKENS = FLUSH_BYTES // FLUSH_REQUESTS // len(f'"{_TEXT}",')  # of each request in the largest flush of a worker
_SECOND_FRONTEND = "frontend-2"  # the first ones have been reaped by then
_SECOND_WORKER = "worker-2"
_NOBODY = ExpiredReplica("worker-gone", Role.WORKER)


async def measure(quick: bool) -> list[Table]:
    """Fill one shard with requests, then time each script that looks at many of them."""
    held, compared = (500, 2_000) if quick else (10_000, 100_000)
    table = Table("Scripts that may keep Redis busy", ("call", "scripts", "worst, ms", "sum, ms"))
    with bench.server() as redis:
        async with open_store(bench.settings_for(redis.url)) as store:

            async def timed(label: str, work: Callable[[], Awaitable[object]]) -> None:
                bench.forget_script_times(redis)
                await work()
                times = bench.script_times(redis)
                table.add(label, len(times.durations_ms), times.worst_ms, times.sum_ms)

            rids = [f"r{number}" for number in range(held)]
            await join(store, bench.FRONTEND, Role.FRONTEND, {}, [])
            await join(store, bench.WORKER, Role.WORKER, {}, [bench.MODEL])
            await bench.admit_all(store, rids)
            await bench.start_queued(store, held)
            for label, work in _of_running(store, rids):
                await timed(label, work)
            await timed(f"reap: a worker that ran {held:,}", lambda: _reap_all(store, _worker_gone(), [bench.FRONTEND]))
            gone = ExpiredReplica(bench.FRONTEND, Role.FRONTEND)
            await timed(f"reap: a frontend that owned {held:,}", lambda: _reap_all(store, gone, []))
            owner = cluster.Filter(owner="acme")
            await timed(
                f"listing by owner over {held:,} finished, no match", lambda: cluster.list_requests(store, owner, 100)
            )
            await _expire(store)
            await timed(f"sweep: {held:,} expired records", lambda: _sweep_all(store))
            late = [f"late{number}" for number in range(held)]
            await join(store, _SECOND_FRONTEND, Role.FRONTEND, {}, [])
            await bench.admit_all(store, late, frontend=_SECOND_FRONTEND, deadline_secs=0.001)
            await timed(f"sweep: {held:,} requests behind their deadline", lambda: _sweep_all(store))
            many = await _held_only_in_redis(store, compared)
            await timed(
                f"reconcile: {compared:,} ids compared",
                lambda: store.reconcile_shard(0, _SECOND_WORKER, Role.WORKER, many),
            )
    return [table]


def _of_running(store: Store, rids: list[str]) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
    """Return the calls that leave what runs as it is, but for its tokens."""
    some = rids[:FLUSH_REQUESTS]
    texts = [_TEXT] * _FLUSH_TOKENS
    first = [bench.tokens(rid, 1, [_TEXT]) for rid in some]
    second = [bench.tokens(rid, 2, [_TEXT]) for rid in some]
    largest = [bench.tokens(rid, 2 + _FLUSH_TOKENS, texts) for rid in some]
    other = cluster.Filter(status="inflight", model="other")
    held = len(rids)
    return [
        (f"append: the first token of {len(some)} requests", lambda: store.append(0, bench.WORKER, first)),
        (f"append: one token of {len(some)} requests", lambda: store.append(0, bench.WORKER, second)),
        (f"append: {_FLUSH_TOKENS} tokens of {len(some)} requests", lambda: store.append(0, bench.WORKER, largest)),
        (
            f"reconcile: {held:,} held, numbers equal",
            lambda: store.reconcile_shard(0, bench.WORKER, Role.WORKER),
        ),
        (
            f"reconcile: {held:,} ids compared",
            lambda: store.reconcile_shard(0, bench.WORKER, Role.WORKER, rids),
        ),
        ("listing: a page of 1,000, all match", lambda: cluster.list_requests(store, cluster.Filter("inflight"), 999)),
        (f"listing over {held:,} inflight, no match", lambda: cluster.list_requests(store, other, 100)),
        ("browse: 500 looked at, no match", lambda: store.browse(0, "active", "oldest", 0, 500, 50, "", ["zzz"])),
        ("browse: 500 rows", lambda: store.browse(0, "active", "oldest", 0, 500, 500, "", [])),
        ("reap: a worker that ran nothing", lambda: store.reap(0, _NOBODY)),
    ]


def _worker_gone() -> ExpiredReplica:
    return ExpiredReplica(bench.WORKER, Role.WORKER)


async def _reap_all(store: Store, expired: ExpiredReplica, new_owners: list[str]) -> None:
    while True:
        reaped = await store.reap(0, expired)
        if reaped.done or not (reaped.ended or reaped.moved):
            return


async def _sweep_all(store: Store) -> None:
    while (await store.sweep(0)).more:
        pass


async def _expire(store: Store) -> None:
    """Let the retention of every finished record end now."""
    key = store.keys.prefixes[0] + "expiries"
    rids = await store.command("ZRANGE", key, 0, -1)
    for start in range(0, len(rids), 1000):
        await store.command("ZADD", key, *(word for rid in rids[start : start + 1000] for word in ("1", rid)))


async def _held_only_in_redis(store: Store, count: int) -> list[str]:
    """Let Redis count so many requests as the second worker's; returns their ids."""
    rids = [f"held-{number:016x}" for number in range(count)]
    for start in range(0, count, 1000):
        fields = (word for rid in rids[start : start + 1000] for word in (rid, " " * 65))
        await store.command("HSET", f"{store.keys.prefixes[0]}running:{_SECOND_WORKER}", *fields)
    return rids
