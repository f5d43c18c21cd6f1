"""Measure what an admission and a take cost Redis, by how many requests are queued and of how many owners."""

from __future__ import annotations

import asyncio
from functools import partial

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.ids import new_nonce
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import OnDisconnect, Role
from tests.admitting import new_request
from tests.joining import join

_TOGETHER = 16


async def measure(quick: bool) -> list[Table]:
    """Fill one queue to several depths, and admit and take a few requests at each."""
    measured, depths = (32, (0, 200)) if quick else (2_000, (0, 1_000, 10_000, 100_000))
    table = Table(
        "CPU of Redis for one request, by the length of the queue",
        ("queued, owners", "admit, µs", "take one, µs"),
        note="User and system time of the server's process, divided by the calls.",
    )
    for owners in (1, 1_000):
        with bench.server() as redis:
            async with open_store(bench.settings_for(redis.url)) as store:
                await join(store, bench.FRONTEND, Role.FRONTEND, {}, [])
                await join(store, bench.WORKER, Role.WORKER, {}, [bench.MODEL])
                queued = 0
                for depth in depths:
                    queued = await _admit(store, queued, depth - queued, owners)
                    admit_us, take_us = 0.0, 0.0
                    for _ in range(measured // _TOGETHER):
                        admit_us += await bench.cpu_us(redis, partial(_admit, store, queued, _TOGETHER, owners))
                        take_us += await bench.cpu_us(redis, partial(_take, store, _TOGETHER))
                        queued += _TOGETHER
                    calls = measured // _TOGETHER * _TOGETHER
                    table.add(f"{depth:,}, {owners:,}", admit_us / calls, take_us / calls)
    return [table]


async def _admit(store: Store, first: int, count: int, owners: int) -> int:
    """Admit `count` requests of several owners, the first with the number `first`. Return the number behind them."""
    for begin in range(first, first + count, _TOGETHER):
        await asyncio.gather(
            *(
                store.admit(
                    new_request(
                        f"scale-{owners}-{number}",
                        new_nonce(),
                        bench.LABELS,
                        bench.FRONTEND,
                        bench.BODY,
                        OnDisconnect.CANCEL.value,
                        owner=f"owner-{number % owners}",
                        max_tokens=100,
                    )
                )
                for number in range(begin, min(begin + _TOGETHER, first + count))
            )
        )
    return first + max(0, count)


async def _take(store: Store, count: int) -> None:
    """Take requests one by one."""
    for _ in range(count):
        await bench.start_queued(store, 1)
