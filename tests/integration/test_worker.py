"""The worker against what it does not expect: deliveries twice, poison in its queues and sets, data that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.context import EngineContext
from lifecycle.settings import Settings
from lifecycle.store.scripts import Store
from tests.conftest import MakeSettings, MakeStore
from tests.unit.world import World
from tests.waiting import wait_until
from tests.workers import serving


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Leases that outlast the test: the world's replicas beat once."""
    return make_settings(lease_secs=60.0, drain_timeout_secs=0.1, kill_grace_secs=0.2)


@pytest.fixture
async def world(settings: Settings, make_store: MakeStore) -> World:
    world = World(make_store(settings))
    await world.open()
    await world.store.bury("w0")
    await world.store.bury("w1")
    for name in ("w0", "w1"):
        await world.store.close_grave(name)
    return world


async def two_words(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    yield "one "
    yield "two"


async def _status(world: World, rid: str = "r") -> str:
    return (await world.record(rid)).status.value


async def _until(world: World, status: str, rid: str = "r") -> None:
    async def reached() -> bool:
        return await _status(world, rid) == status

    await wait_until(reached, what=f"{rid} being {status}")


async def test_a_request_delivered_again_is_not_held_up_by_an_engine_that_does_not_end(
    settings: Settings, world: World
) -> None:
    """Its first attempt was given back behind the worker's back, and its engine hangs for good."""
    release = asyncio.Event()

    async def stuck_at_first(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        while context.attempt == 1 and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        yield f"attempt {context.attempt}"

    async with serving(settings, stuck_at_first) as worker:
        await world.admit()
        await _until(world, "running")
        assert await world.store.requeue("r", worker.id, attempt=1) == "requeued"
        await _until(world, "completed")
        assert await world.tokens() == "attempt 2"
        await wait_until(lambda: worker.about()["stuck"] == 1)
        release.set()
        await wait_until(lambda: worker.about()["stuck"] == 0)
        assert await _pending(world.store, "retry") == 0


async def _pending(store: Store, queue: str) -> int:
    summary = await store.command("XPENDING", f"{store.keys.prefixes[0]}{queue}:m", "workers")
    return int(summary[0])
