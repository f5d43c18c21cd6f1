"""Count the connections and the commands a second that an idle frontend and an idle worker cost a Redis Cluster.

They are real processes under the default settings, on three nodes with 16 shards.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.settings import load
from tests.cluster import running
from tests.cluster_setup import ClusterSetup
from tests.servers import ask

_SHOWN = 6  # commands, the most frequent first
_NOT_CLIENTS = ("cmd=client|list", "flags=S")


async def measure(quick: bool) -> list[Table]:
    """Count with a frontend alone, then with a worker beside it."""
    settle_secs, secs = (0.2, 0.5) if quick else (4.0, 12.0)
    table = Table(
        "Idle replicas on a Cluster of three nodes",
        ("replicas", "connections", "of them to each node", "commands/s", "the most frequent"),
    )
    with ClusterSetup() as setup, TemporaryDirectory(prefix="benchmark-") as directory:
        chosen = load({"redis_url": setup.url, "log_level": "error"})
        async with running(chosen, Path(directory), workers=0) as cluster:
            await asyncio.sleep(settle_secs)
            table.add("one frontend", *await _figures(setup, secs))
            await cluster.worker()
            await asyncio.sleep(settle_secs)
            table.add("and one worker", *await _figures(setup, secs))
    return [table]


async def _figures(setup: ClusterSetup, secs: float) -> tuple[int, str, float, str]:
    connections = [_clients(ask(node, "CLIENT", "LIST")) for node in setup.primaries]
    for node in setup.primaries:
        bench.reset_counters(node)
    await asyncio.sleep(secs)
    rates: dict[str, float] = {}
    for node in setup.primaries:
        for command, calls in bench.calls_of(node).items():
            rates[command] = rates.get(command, 0.0) + calls / secs
    most = sorted(rates, key=lambda command: -rates[command])[:_SHOWN]
    shown = ", ".join(f"{command} {rates[command]:.1f}" for command in most)
    return sum(connections), " ".join(map(str, connections)), sum(rates.values()), shown


def _clients(listing: str) -> int:
    return sum(not any(word in line for word in _NOT_CLIENTS) for line in listing.splitlines())
