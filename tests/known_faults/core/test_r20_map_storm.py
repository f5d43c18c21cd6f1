"""While one slot of a Cluster moves, its node answers ASK for keys that have gone already, for as long as that takes.

Each such answer makes a process ask the nodes for the whole map of slots, again and again. Expected: a slot that moves
does not change the map, so that hardly anything is asked.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from lifecycle.store.connect import open_store
from lifecycle.store.redis_cluster_topology import slot_of
from tests.cluster_setup import ClusterSetup
from tests.known_faults.core.replicas import quick_settings
from tests.servers import ask, info

_ROUNDS = 100
_PAUSE_SECS = 0.01
_MAPS_PER_SEC = 3  # of one process; the fault makes about 29


def _maps(setup: ClusterSetup) -> int:
    """Return how often the nodes have been asked for the map; this asks for none itself."""
    found = [info(node, "commandstats").get("cmdstat_cluster|slots", "calls=0") for node in setup.nodes]
    return sum(int(values.split(",")[0].removeprefix("calls=")) for values in found)


@pytest.mark.slow
async def test_a_slot_that_moves_makes_nobody_ask_for_the_map_over_and_over() -> None:
    with ClusterSetup() as setup:
        async with open_store(quick_settings(setup.url, shards=6)) as store:
            slot = slot_of(store.keys.prefixes[0])
            source = setup.node_of(slot)
            target = next(node for node in setup.primaries if node is not source)
            rids = [f"r{number}" for number in range(20)]
            await asyncio.gather(*(store.read(rid) for rid in rids))
            ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
            ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
            before, began = _maps(setup), time.monotonic()

            for _ in range(_ROUNDS):
                await asyncio.gather(*(store.read(rid) for rid in rids), return_exceptions=True)
                await asyncio.sleep(_PAUSE_SECS)

            asked, secs = _maps(setup) - before, time.monotonic() - began
            assert asked <= _MAPS_PER_SEC * (1 + secs), f"{asked} times within {secs:.1f} s"
