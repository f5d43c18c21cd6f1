"""Replicas that a shard knows and the control keys do not: they get one lease, and what they left ends after it."""

from __future__ import annotations

import asyncio
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
    for queue in ("queue", "retry"):
        await store.command("XGROUP", "CREATE", f"{world.prefix}{queue}:{MODEL}", "workers", "0", "MKSTREAM")
    for role, name in DEAD.items():
        await store.heartbeat(name, role, {}, [MODEL])
    await admit(store, "r", frontend=DEAD[Role.FRONTEND])
    assert await world.start(await world.take(DEAD[Role.WORKER]), DEAD[Role.WORKER])
    assert await world.append(1, worker=DEAD[Role.WORKER]) == "accepted"
    await _lose_control_keys(store)
    yield store
    await repair(store)


async def _lose_control_keys(store: Store) -> None:
    async for keys in store.scan(store.keys.control + "*", 100):
        for key in keys:
            await store.command("UNLINK", key)


async def _read(store: Store) -> RequestRecord:
    record = await store.read("r")
    assert record is not None
    return record


async def _orphans(store: Store) -> tuple[Level, str]:
    (found,) = [finding for finding in await check_requests(store) if finding.check == "orphans"]
    return found.level, found.advice


async def test_their_requests_end_by_themselves(store: Store) -> None:
    await store.heartbeat(LIVING, Role.FRONTEND, {}, [])
    level, advice = await _orphans(store)
    assert level is Level.WARN
    assert "within 1.6s" in advice
    reaper = Reaper(store)

    async def has_ended() -> bool:
        await store.heartbeat(LIVING, Role.FRONTEND, {}, [])
        await reaper.sweep()
        return (await _read(store)).status.terminal

    await wait_until(has_ended, timeout=4 * store.settings.lease_secs)
    assert (await _orphans(store))[0] is Level.OK


@pytest.mark.leaves_inflight
async def test_a_lent_lease_is_not_shown(store: Store) -> None:
    """Show nobody a replica of which nothing is known: it must neither own a request nor be taken for a worker."""
    assert await store.lend_leases([(DEAD[Role.FRONTEND], "frontend"), (DEAD[Role.WORKER], "worker")]) == 2
    assert (await store.roster()).replicas == []


async def test_one_that_lives_keeps_its_lease(store: Store) -> None:
    reaper = Reaper(store)
    await reaper.sweep()
    assert reaper.lent == 2
    await store.heartbeat(DEAD[Role.WORKER], Role.WORKER, {}, [MODEL])
    await reaper.sweep()
    assert reaper.lent == 0
    assert [replica.id for replica in (await store.roster()).replicas] == [DEAD[Role.WORKER]]
    assert (await _read(store)).status == "running"
    await store.expire(DEAD[Role.WORKER])
    assert await store.lend_leases([(DEAD[Role.WORKER], "worker")]) == 0, "its cleanup is pending"


async def test_doctor_repairs_them_where_no_replica_runs(store: Store) -> None:
    level, advice = await _orphans(store)
    assert level is Level.FAIL
    assert "run 'lifecycle doctor --repair'" in advice
    await store.command("SET", f"{store.keys.prefixes[0]}body:stray", "x")
    async with asyncio.timeout(10):
        await repair(store)
    record = await _read(store)
    assert record.status == "failed"
    assert record.error_type in ("worker_lost", "frontend_lost"), "whichever is cleaned up first"
    assert (await _orphans(store))[0] is Level.OK
    assert await store.command("PTTL", f"{store.keys.prefixes[0]}body:stray") > 0
