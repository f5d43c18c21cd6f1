"""/v1/replicas and every scrape of the metrics ask Redis once for each replica and each shard, all at the same time.

With 100 replicas and 1,024 shards, which is allowed, these are more commands than a process lets wait: the question is
refused by the process itself. Expected: it is answered, and nobody else in the process is refused meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lifecycle.aio import tasks
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import cluster
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.known_faults.core.replicas import quick_settings

_REPLICAS = 100
_SHARDS = 1024


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A store of a cluster with so many replicas."""
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, shards=_SHARDS, lease_secs=600.0, heartbeat_secs=60.0)
        async with open_store(settings) as opened:
            about = {"models": ["m"], "started_at": 1.0}
            heartbeats = (
                opened.heartbeat(f"worker-{number}", Role.WORKER, about, ["m"]) for number in range(_REPLICAS)
            )
            await asyncio.gather(*heartbeats)
            yield opened


@pytest.mark.slow
async def test_the_replicas_of_a_large_cluster_are_listed(store: Store) -> None:
    assert len(await cluster.replicas(store)) == _REPLICAS


@pytest.mark.slow
async def test_others_are_answered_while_the_replicas_of_a_large_cluster_are_listed(store: Store) -> None:
    listing = asyncio.create_task(cluster.replicas(store))
    answered = 0
    try:
        while not listing.done():
            assert await store.read("r1") is None
            answered += 1
    finally:
        await tasks.end((listing,))
    assert answered > 0
