"""Measure what waiting for a replica costs (LIFECYCLE_WAIT_REPLICAS), with primary and replica on this machine."""

from __future__ import annotations

import asyncio
import time

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode
from tests.servers import ask, info
from tests.waiting import wait_until

_WAIT_MS = 100
_TOGETHER = 64


async def measure(quick: bool) -> list[Table]:
    """Time cancels of queued requests one by one, and many at a time, without and with the wait."""
    count = 64 if quick else 1024
    columns = ("cancels", "alone, p50, µs", "alone, p99, µs", f"{_TOGETHER} at a time, µs each", "in vain")
    table = Table("Waiting for a replica", columns)
    with bench.server() as primary, bench.server() as replica:
        ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        await wait_until(lambda: info(replica, "replication").get("master_link_status") == "up", 20.0, "a replica")
        for label, replicas in (("without", 0), ("with WAIT 1", 1)):
            settings = bench.settings_for(
                primary.url, namespace=f"wait{replicas}", wait_replicas=replicas, wait_timeout_ms=_WAIT_MS
            )
            async with open_store(settings) as store:
                await bench.admit_all(store, [f"r{number}" for number in range(2 * count)])
                alone_us = sorted([await _cancel_us(store, f"r{number}") for number in range(count)])
                each_us = await _together_us(store, range(count, 2 * count))
                in_vain = store.unreplicated.counts.get("cancel", 0)
                table.add(label, alone_us[count // 2], alone_us[count * 99 // 100], each_us, in_vain)
    return [table]


async def _cancel_us(store: Store, rid: str) -> float:
    began = time.perf_counter()
    await store.cancel(rid, CancelMode.KILL, "measured")
    return (time.perf_counter() - began) * 1e6


async def _together_us(store: Store, numbers: range) -> float:
    """Return the time of all these cancels divided by their number, with so many under way all the time."""
    remaining = iter(numbers)

    async def cancel_some() -> None:
        for number in remaining:
            await _cancel_us(store, f"r{number}")

    began = time.perf_counter()
    await asyncio.gather(*(cancel_some() for _ in range(_TOGETHER)))
    return (time.perf_counter() - began) * 1e6 / len(numbers)
