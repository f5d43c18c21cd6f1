"""The small cluster on both servers: every test of it runs on fakeredis and on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from tests.conftest import MakeSettings, connect
from tests.leaks import assert_no_leaks
from tests.unit.fake import fake_store
from tests.unit.world import LEASE_SECS, World

COMMON: dict[str, Any] = {"lease_secs": LEASE_SECS, "heartbeat_secs": 10.0, "max_attempts": 2, "queue_limit": 2}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.slow)])
async def world(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[World]:
    """Provide a world on fakeredis or on a server. Only the second variant starts a server."""
    if request.param == "fake":
        store = fake_store(Settings(namespace=namespace, sweep_secs=0.25, **COMMON))
    else:
        make_settings: MakeSettings = request.getfixturevalue("make_settings")
        settings = make_settings(**COMMON)
        store = Store(connect(settings), settings)
    world = World(store)
    await world.open()
    yield world
    await world.close()
    await assert_no_leaks(store, inflight_allowed=True)
    await store.commands.aclose()
