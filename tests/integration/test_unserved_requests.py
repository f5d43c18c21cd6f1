"""A queued request that no living worker takes any more is told so, although no worker of the model has a free slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.replica import unserved_requests
from lifecycle.replica.reaper import Reaper
from lifecycle.replica.unserved_requests import PAGE, UnservedRequests
from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import workers_of
from lifecycle.types import ReplicaState, RequestRecord, Role
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.unit.world import MODEL, World
from tests.waiting import wait_until
from tests.workers import serving


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Leases that outlast the test, and sweeps that are frequent."""
    return make_settings(lease_secs=60.0, heartbeat_secs=0.1, sweep_secs=0.1, concurrency=1, drain_timeout_secs=0.1)


@pytest.fixture
async def world(settings: Settings, make_store: MakeStore) -> World:
    """A world without workers of its own."""
    world = await World.without_workers(make_store(settings))

    async def is_restored() -> bool:
        await world.store.listed()
        return world.store.roster_cache.age_secs >= 2 * settings.heartbeat_secs

    await wait_until(is_restored, what="a list of replicas in which each has had the time to be")
    return world


async def _until(world: World, rid: str, *statuses: str) -> RequestRecord:
    async def has_status() -> bool:
        return (await world.record(rid)).status in statuses

    await wait_until(has_status, what=f"{rid} as {statuses}")
    return await world.record(rid)


async def test_it_ends_while_every_worker_is_busy(settings: Settings, world: World) -> None:
    release = asyncio.Event()

    async def busy(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        await release.wait()
        yield "done"

    busy.accepts = ()  # type: ignore[attr-defined]
    await join(world.store, "able", Role.WORKER, {"accepts": ["tools"], "models": [MODEL]}, [MODEL])
    async with serving(settings, busy):
        await world.admit("running")
        await _until(world, "running", "running")
        await world.admit("plain")
        await world.admit("tools", needs=("tools",))
        await world.store.leave("able", Role.WORKER)
        record = await _until(world, "tools", "failed")
        assert (record.error_type, record.attempt) == ("validation", 0)
        assert record.error_detail is not None
        assert (record.error_detail.status, record.error_detail.param) == (400, "tools")
        assert (await world.record("running")).status == "running"
        assert (await world.record("plain")).status == "queued"
        release.set()
        await _until(world, "plain", "completed")


async def test_it_ends_as_unavailable_while_who_takes_it_is_unhealthy(world: World) -> None:
    about = {"accepts": ["tools"], "models": [MODEL], "state": ReplicaState.UNHEALTHY, "error": "the GPU is lost"}
    await join(world.store, "able", Role.WORKER, about, [MODEL])
    await join(world.store, "other", Role.WORKER, {"accepts": [], "models": [MODEL]}, [MODEL])
    await world.admit("tools", needs=("tools",))
    await Reaper(world.store).sweep(0)
    record = await world.record("tools")
    assert (record.error_type, record.error_message) == ("unavailable", "the GPU is lost")


async def _check(unserved: UnservedRequests, world: World) -> None:
    await unserved.check(0, workers_of(await world.store.listed(), 60.0))


@pytest.mark.leaves_inflight
async def test_the_queue_is_read_only_after_an_offer_is_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    queued_page = Store.queued_page

    async def counted(self: Store, *args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await queued_page(self, *args)

    monkeypatch.setattr(Store, "queued_page", counted)
    able = {"accepts": ["tools"], "models": [MODEL]}
    await join(world.store, "w0", Role.WORKER, able, [MODEL])
    unserved = UnservedRequests(world.store)
    for number in range(PAGE + 1):
        await world.admit(f"r{number}", needs=("tools",) if number == PAGE else ())
    for expected in (2, 2):  # two pages when it comes to the shard, and none while nothing changes
        await _check(unserved, world)
        assert reads == expected
    await join(world.store, "w1", Role.WORKER, {"accepts": [], "models": [MODEL]}, [MODEL])
    await _check(unserved, world)
    assert reads == 2  # another offer takes nothing away
    await world.store.leave("w0", Role.WORKER)
    await _check(unserved, world)
    assert reads == 4
    assert (await world.record(f"r{PAGE}")).error_type == "validation"
    assert (await world.record("r0")).status == "queued"


@pytest.mark.leaves_inflight
async def test_an_offer_that_goes_while_the_queue_is_read_in_several_sweeps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unserved_requests, "PAGE", 1)
    monkeypatch.setattr(unserved_requests, "_PAGES_LIMIT", 1)
    await join(world.store, "w0", Role.WORKER, {"accepts": ["tools"], "models": [MODEL]}, [MODEL])
    await join(world.store, "w1", Role.WORKER, {"accepts": [], "models": [MODEL]}, [MODEL])
    await world.admit("tools", needs=("tools",))
    await world.admit("plain")
    unserved = UnservedRequests(world.store)
    await _check(unserved, world)
    await world.store.leave("w0", Role.WORKER)
    for _ in range(4):  # the rest of the first reading, and a second one
        await _check(unserved, world)
    assert (await world.record("tools")).error_type == "validation"
    assert (await world.record("plain")).status == "queued"


@pytest.mark.leaves_inflight
async def test_what_an_engine_that_is_loaded_may_take_waits(world: World) -> None:
    await join(world.store, "w0", Role.WORKER, {"accepts": [], "models": [MODEL]}, [MODEL])
    await join(world.store, "w1", Role.WORKER, {"models": [MODEL], "state": ReplicaState.STARTING}, [MODEL])
    await world.admit("tools", needs=("tools",))
    unserved = UnservedRequests(world.store)
    await _check(unserved, world)
    assert (await world.record("tools")).status == "queued"
    await join(world.store, "w1", Role.WORKER, {"accepts": [], "models": [MODEL]}, [MODEL])
    await _check(unserved, world)
    assert (await world.record("tools")).error_type == "validation"
