"""In a Redis Cluster the node that serves the control slot goes away for good; the list of replicas is kept there.

The documentation promises that a node that is away takes only its own shards with it. Expected: a stream whose shard
lies on another node goes on, and the frontends stay ready for what the other nodes serve.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.execution.context import EngineContext
from lifecycle.store.redis_cluster_topology import slot_of
from lifecycle.tokens.items import End
from tests.cluster_setup import ClusterSetup
from tests.known_faults.core.replicas import call, frontend, quick_settings, reading, served, worker
from tests.waiting import wait_until

_PAUSE_SECS = 0.02  # between two tokens
_BEFORE = 10  # tokens until the node goes away
_AFTER = 150  # tokens, in three leases, that are to come once it is away


async def _engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    for number in range(100_000):
        yield f"{number} "
        await asyncio.sleep(_PAUSE_SECS)


@dataclass(frozen=True, slots=True)
class Observed:
    """The frontend's readiness and the stream's progress while the node is down."""

    ready: bool
    tokens: int
    end: End | None


async def _observe(setup: ClusterSetup) -> Observed:
    settings = quick_settings(setup.url, shards=6, drain_timeout_secs=0.0)
    async with frontend(settings) as tracker, worker(settings, _engine):
        await served(tracker)
        keys = tracker.store.keys
        control_node = setup.node_of(slot_of(keys.control))
        rid = next(
            rid
            for rid in (f"r{number}" for number in range(100))
            if setup.node_of(slot_of(keys.prefix_of(rid))) is not control_node
        )
        flight = await tracker.admit(call(rid))
        async with reading(flight.reader) as client:
            await client.got(_BEFORE)
            control_node.kill()
            before = len(client.texts)
            await wait_until(lambda: client.end or len(client.texts) >= before + _AFTER, what="an end, or more tokens")
            try:
                await tracker.store.ping()  # as /ready does
                ready = True
            except StoreUnavailable:
                ready = False
            return Observed(ready, len(client.texts) - before, client.end)


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    with ClusterSetup() as setup:
        seen = asyncio.run(_observe(setup))
        gc.collect()  # as in `replicas.worker`: what the closed loop has left is logged now
        yield seen


@pytest.mark.slow
def test_a_stream_on_another_node_goes_on(observed: Observed) -> None:
    assert observed.end is None, f"it ended after {observed.tokens} tokens"


@pytest.mark.slow
def test_a_frontend_stays_ready(observed: Observed) -> None:
    assert observed.ready
