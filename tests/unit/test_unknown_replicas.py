"""Replicas that the list does not show, because the control keys lost their data: what they left ends all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lifecycle.cli.doctor.finding import Level
from lifecycle.cli.doctor.repair import repair
from lifecycle.cli.doctor.requests import check_requests
from lifecycle.replica.reaper import Reaper
from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord, Role
from tests.admitting import admit
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.unit.world import MODEL, World
from tests.waiting import wait_until

DEAD = {Role.FRONTEND: "frontend-dead", Role.WORKER: "worker-dead"}
LIVING = "frontend-living"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(lease_secs=0.4, heartbeat_secs=0.1, sweep_secs=0.1, queue_without_workers=True)


@pytest.fixture
async def store(settings: Settings, make_store: MakeStore) -> AsyncIterator[Store]:
    """Requests of replicas that died while the control keys lost all their data."""
    store = make_store(settings)
    world = World(store)
    for role, name in DEAD.items():
        await join(store, name, role, {}, [MODEL])
    await admit(store, "r", frontend=DEAD[Role.FRONTEND])
    assert await world.take(DEAD[Role.WORKER])
    assert await world.append(1, worker=DEAD[Role.WORKER]) == "accepted"
    async for keys in store.scan(store.keys.control + "*", 100):
        for key in keys:
            await store.command("UNLINK", key)
    yield store
    await repair(store)


async def _read(store: Store) -> RequestRecord:
    record = await store.read("r")
    assert record is not None
    return record


async def test_their_requests_end_by_themselves(store: Store) -> None:
    reaper = Reaper(store)

    async def has_ended() -> bool:
        await join(store, LIVING, Role.FRONTEND)
        await reaper.sweep(0)
        return (await _read(store)).status.terminal

    await wait_until(has_ended, timeout=4 * store.settings.lease_secs)
    (found,) = [finding for finding in await check_requests(store) if finding.check == "orphans"]
    assert found.level is Level.OK


async def test_those_end_too_whose_leases_in_the_shard_are_lost(store: Store) -> None:
    for key in ("frontends", "workers"):
        await store.command("DEL", store.keys.prefixes[0] + key)
    await test_their_requests_end_by_themselves(store)


async def test_doctor_ends_them_when_no_replica_runs(store: Store) -> None:
    await repair(store)
    assert (await _read(store)).status.terminal


@pytest.mark.leaves_inflight
async def test_one_that_lives_keeps_what_it_holds(store: Store) -> None:
    reaper = Reaper(store)

    async def renewed_for_two_leases() -> bool:
        for role, name in DEAD.items():
            await join(store, name, role, {}, [MODEL])
        await reaper.sweep(0)
        return await store.now() > since + 2 * store.settings.lease_secs

    since = await store.now()
    await wait_until(renewed_for_two_leases)
    assert (await _read(store)).status == "running"
    assert {replica.id for replica in (await store.roster()).replicas} == set(DEAD.values())


async def test_a_worker_whose_lease_was_lost_waits_no_more_when_it_expires(world: World) -> None:
    """Redis has lost everything, and the worker has taken before its next heartbeat."""
    worker, shard = "worker-back", world.prefix
    await join(world.store, worker, Role.WORKER, models=[MODEL])
    await world.store.command("ZREM", f"{shard}workers", worker)
    await world.store.command("HDEL", f"{shard}served", worker)
    await world.take_all(worker)
    await world.store.expire(0)  # gives it a lease, as it was here
    await join(world.store, worker, Role.WORKER, models=[MODEL])
    await world.reap(worker)
    assert await world.store.command("ZSCORE", f"{shard}waiting:{MODEL}", worker) is None
