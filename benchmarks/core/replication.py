"""Measure the time until a Redis replica has a write (`WAIT 1`), with primary and replica on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.store.connect import open_store
from tests.servers import ask, info
from tests.waiting import wait_until

_WAIT_MS = 100


async def measure(quick: bool) -> list[Table]:
    """Time a write alone, and the same write with WAIT in its pipeline."""
    count = 50 if quick else 400
    table = Table("Waiting for a replica", ("commands", "p50, µs", "p99, µs"))
    with bench.server() as primary, bench.server() as replica:
        ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        await wait_until(lambda: info(replica, "replication").get("master_link_status") == "up", 20.0, "a replica")
        async with open_store(bench.settings_for(primary.url)) as store:
            alone: Sequence[tuple[Any, ...]] = [("SET", "key", "value")]
            for label, commands in (("SET", alone), ("SET, WAIT 1", [*alone, ("WAIT", 1, _WAIT_MS)])):
                took_us: list[float] = []
                for _ in range(count):
                    began = time.perf_counter()
                    await store.commands.execute_many(commands)
                    took_us.append((time.perf_counter() - began) * 1e6)
                took_us.sort()
                table.add(label, took_us[count // 2], took_us[count * 99 // 100])
    return [table]
