"""`python -m benchmarks.primaries`: what the same requests cost one Redis server, and the primaries of a Redis Cluster.

The scripts of whole requests (admission, start, appends of eight requests each, finish) run in 16 shards at once,
called by this process without HTTP and without engines. Each server's own CPU time is measured: the server that is full
first decides what all of them carry. On a machine with few cores the servers and this process share them, so the rate
that is measured says less than the CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

import orjson
import uvloop

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.connect import open_store
from lifecycle.store.results import Append, Outcome
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.cluster_setup import ClusterSetup
from tests.joining import join
from tests.servers import info

_SHARDS = 16
_TOGETHER = 8  # requests that run in one shard at the same time, and share their flushes
_TOKEN = orjson.dumps(["token "])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.primaries", description=__doc__)
    parser.add_argument("--primaries", type=int, default=4, help="of the Redis Cluster (%(default)s)")
    parser.add_argument("--requests", type=int, default=4000, help="how many run on each (%(default)s)")
    parser.add_argument("--tokens", type=int, default=50, help="of each request, in as many flushes (%(default)s)")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    print(uvloop.run(measure(args.primaries, args.requests, args.tokens)).text())
    return 0


async def measure(primaries: int, requests: int, tokens: int) -> Table:
    """Measure the same requests on one server and on so many primaries."""
    table = Table(
        f"{requests:,} requests of {tokens} tokens, {_SHARDS} shards",
        (
            "servers",
            "requests/s measured",
            "Redis, µs a request",
            "the busiest, µs a request",
            "its share",
            "requests/s when it is full",
        ),
        note="The last column is calculated: one core for each server, and nothing else that is full before.",
    )
    with EmbeddedRedis(port=0) as alone:
        table.add("1", *await _measure([alone], alone.url, requests, tokens))
    with ExitStack() as stack:
        cluster = stack.enter_context(ClusterSetup(primaries=primaries))
        table.add(f"{primaries} primaries", *await _measure(cluster.primaries, cluster.url, requests, tokens))
    return table


async def _measure(
    servers: Sequence[EmbeddedRedis], url: str, requests: int, tokens: int
) -> tuple[float, float, float, str, float]:
    settings = bench.settings_for(url, shards=_SHARDS)
    async with open_store(settings) as store:
        await join(store, bench.FRONTEND, Role.FRONTEND)
        await join(store, bench.WORKER, Role.WORKER, models=[bench.MODEL])
        await _run(store, _SHARDS * _TOGETHER, tokens, "warm")
        before, began = [_cpu_secs(server) for server in servers], time.monotonic()
        count = await _run(store, requests, tokens, "r")
        took = time.monotonic() - began
        used = [_cpu_secs(server) - earlier for server, earlier in zip(servers, before, strict=True)]
    busiest = max(used)
    return (
        count / took,
        sum(used) / count * 1e6,
        busiest / count * 1e6,
        f"{busiest / sum(used):.0%}",
        count / busiest,
    )


def _cpu_secs(server: EmbeddedRedis) -> float:
    cpu = info(server, "cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


async def _run(store: Store, requests: int, tokens: int, prefix: str) -> int:
    """Run about so many requests, as many in each shard, and return how many they were."""
    batches = max(1, requests // (_SHARDS * _TOGETHER))
    ids: list[list[str]] = [[] for _ in range(_SHARDS)]
    number = 0
    while any(len(own) < batches * _TOGETHER for own in ids):
        rid = f"{prefix}-{number}"
        ids[store.keys.shard_of(rid)].append(rid)
        number += 1
    await asyncio.gather(
        *(_run_shard(store, shard, own[: batches * _TOGETHER], tokens) for shard, own in enumerate(ids))
    )
    return batches * _TOGETHER * _SHARDS


async def _run_shard(store: Store, shard: int, rids: Sequence[str], tokens: int) -> None:
    for begin in range(0, len(rids), _TOGETHER):
        batch = rids[begin : begin + _TOGETHER]
        await asyncio.gather(*(bench.admit(store, rid) for rid in batch))
        await bench.start_queued(store, len(batch), shard)
        for last in range(1, tokens + 1):
            refused = await store.append(
                shard, bench.WORKER, [Append(rid, 1, last, _TOKEN, last == 1) for rid in batch]
            )
            if refused:
                raise RuntimeError(f"Redis refused tokens: {refused}")
        await asyncio.gather(
            *(store.finish(rid, bench.WORKER, 1, Outcome("completed", finish_reason="stop"), tokens) for rid in batch)
        )


if __name__ == "__main__":
    sys.exit(main())
