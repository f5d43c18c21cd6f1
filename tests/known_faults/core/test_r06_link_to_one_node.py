"""A worker of a Cluster reaches every node but one, while everybody else reaches them all.

Nothing of what it runs in that node's shards can be written, and it does not hear of a cancel there. Expected: those
requests end with its lease in their shards, for whatever single link is cut, every accepted request reaches one
terminal status.

The link is cut for good by taking the worker's user away from that node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.store.redis_cluster_topology import slot_of
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import CancelMode
from tests.cluster_setup import ClusterNode, ClusterSetup
from tests.known_faults.core.kit import ended, held_within, record_of
from tests.known_faults.core.replicas import call, frontend, quick_settings, reading, served, worker
from tests.servers import ask

_USER, _PASSWORD = "serving", "secret"
_PAUSE_SECS = 0.01  # between two tokens
_HEARTBEATS = 16  # four leases of 0.8 s


@pytest.fixture(scope="module")
def setup() -> Iterator[ClusterSetup]:
    with ClusterSetup() as setup:
        yield setup


async def _endless(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    while True:
        yield "t"
        await asyncio.sleep(_PAUSE_SECS)


@asynccontextmanager
async def _cut_off(setup: ClusterSetup, namespace: str) -> AsyncIterator[tuple[Tracker, str]]:
    """A frontend, and a request that runs at a worker which does not reach the node of that request's shard."""
    for node in setup.nodes:
        ask(node, "ACL", "SETUSER", _USER, "reset", "on", f">{_PASSWORD}", "~*", "&*", "+@all")
    settings = quick_settings(
        setup.url,
        shards=6,
        namespace=namespace,
        lease_secs=0.8,
        heartbeat_secs=0.2,
        drain_timeout_secs=0.0,
        redis_timeout_secs=1.0,
    )
    theirs = settings.model_copy(update={"redis_url": setup.url.replace("://", f"://{_USER}:{_PASSWORD}@")})
    async with frontend(settings) as tracker, worker(theirs, _endless):
        await served(tracker)
        keys = tracker.store.keys
        control = setup.node_of(slot_of(keys.control))

        def node_of(rid: str) -> ClusterNode:
            return setup.node_of(slot_of(keys.prefix_of(rid)))

        rid = next(rid for rid in (f"r{number}" for number in range(100)) if node_of(rid) is not control)
        flight = await tracker.admit(call(rid))
        async with reading(flight.reader) as client:
            await client.got(3)
            ask(node_of(rid), "ACL", "SETUSER", _USER, "off")
            ask(node_of(rid), "CLIENT", "KILL", "USER", _USER)
            try:
                yield tracker, rid
            finally:
                ask(node_of(rid), "ACL", "SETUSER", _USER, "on")


@pytest.mark.slow
async def test_a_request_ends_whose_worker_is_cut_off_from_its_shard(setup: ClusterSetup) -> None:
    async with _cut_off(setup, "lc-waiting") as (tracker, rid):
        store = tracker.store
        assert await held_within(store, tracker.id, _HEARTBEATS, lambda: ended(store, rid)), await record_of(store, rid)


@pytest.mark.slow
async def test_a_cancelled_request_ends_whose_worker_is_cut_off_from_its_shard(setup: ClusterSetup) -> None:
    async with _cut_off(setup, "lc-cancelled") as (tracker, rid):
        store = tracker.store
        assert await tracker.cancel(rid, CancelMode.KILL, "a test asked for it") is not None
        assert await held_within(store, tracker.id, _HEARTBEATS, lambda: ended(store, rid)), await record_of(store, rid)
