"""A rack fails: 30 workers die, and with them a node of the Redis Cluster hangs, which is not that of the control slot.

Dead replicas are dealt with one after the other, and each waits for the shards that hang, so that the requests in the
healthy shards wait too. Expected: those end within a lease, a sweep and two seconds, as documented for one worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.replica.reaper import Reaper
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.redis_cluster_topology import slot_of
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.cluster_setup import ClusterSetup
from tests.joining import join
from tests.known_faults.core import writes
from tests.known_faults.core.replicas import MODEL, quick_settings
from tests.waiting import wait_until

_WORKERS = 30
_PROMISED_SECS = 3.25  # a lease, a sweep and two seconds


async def _send_heartbeats(store: Store, reaper: Reaper) -> None:
    """Keep a frontend and a worker alive that are not dealt with, and sweep when it is due."""

    async def renew(shard: int, replica: str, role: Role) -> None:
        while True:
            with suppress(StoreError):
                if (await store.reconcile_shard(shard, replica, role, models=[MODEL], sweeps=True)).sweep:
                    reaper.sweep_soon(shard)
            tasks.check_cancelled()
            await asyncio.sleep(store.settings.heartbeat_secs)

    async with asyncio.TaskGroup() as group:
        for shard in range(store.settings.shards):
            group.create_task(renew(shard, "frontend-1", Role.FRONTEND))
            group.create_task(renew(shard, "worker-1", Role.WORKER))


@asynccontextmanager
async def _survivors(settings: Settings) -> AsyncIterator[None]:
    """Run what a living replica does about the dead ones, beside the heartbeats of the living."""
    async with open_store(settings) as living, open_store(settings) as reaping:
        reaper = Reaper(reaping)
        running = [asyncio.create_task(_send_heartbeats(living, reaper)), asyncio.create_task(reaper.run())]
        try:
            yield
        finally:
            await tasks.end(running)


@pytest.mark.slow
async def test_requests_in_healthy_shards_do_not_wait_for_the_shards_that_hang() -> None:
    with ClusterSetup(node_timeout_ms=60_000) as setup:
        settings = quick_settings(setup.url, shards=6)
        async with open_store(settings) as store:
            control_node = setup.node_of(slot_of(store.keys.control))
            hanging = next(node for node in setup.primaries if node is not control_node)
            everywhere = (f"r{number}" for number in range(1000))
            healthy = (rid for rid in everywhere if setup.node_of(slot_of(store.keys.prefix_of(rid))) is not hanging)
            dead = {f"dead-{number}": next(healthy) for number in range(_WORKERS)}
            await join(store, "frontend-1", Role.FRONTEND, {}, [])
            for worker, rid in dead.items():
                await join(store, worker, Role.WORKER, {}, [MODEL])
                await writes.admit(store, rid, "frontend-1")
                await writes.start(store, rid, worker)
                await writes.append(store, rid, worker, ["a"])

            async def all_ended() -> bool:
                records = await asyncio.gather(*(store.read(rid) for rid in dead.values()))
                return all(record is None or record.status.terminal for record in records)

            hanging.freeze()
            try:
                async with _survivors(settings):
                    died_at = time.monotonic()
                    await wait_until(all_ended, 2 * _PROMISED_SECS, "the end of all requests in healthy shards")
                    took_secs = time.monotonic() - died_at
            finally:
                hanging.thaw()

            assert took_secs < _PROMISED_SECS
