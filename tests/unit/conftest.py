"""The small cluster, on both servers: what fakeredis proves a real one must bear out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import MakeSettings, MakeStore
from tests.leaks import assert_no_leaks
from tests.unit.fake import fake_store
from tests.unit.world import LEASE_SECS, World

COMMON = {"lease_secs": LEASE_SECS, "heartbeat_secs": 10.0, "max_attempts": 2, "queue_limit": 2}


@pytest.fixture(params=["fake", "real"])
async def world(
    request: pytest.FixtureRequest, make_settings: MakeSettings, make_store: MakeStore
) -> AsyncIterator[World]:
    settings = make_settings(**COMMON)
    store = fake_store(settings) if request.param == "fake" else make_store(settings)
    world = World(store)
    await world.open()
    yield world
    await world.close()
    await assert_no_leaks(store, inflight_allowed=True)
    if request.param == "fake":
        await store.commands.aclose()
