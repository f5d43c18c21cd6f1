"""A frontend takes over a request that Redis reassigns to it, by the very event that Redis pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.push_dispatcher import PushDispatcher
from lifecycle.tracking.readers import Readers
from lifecycle.types import ErrorType
from tests.pushes import Pushes
from tests.unit.world import World


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("frontend", ["f1", "f9"])
async def test_a_reassigned_request_is_taken_over_by_its_new_owner_only(world: World, frontend: str) -> None:
    spawned: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[Any, Any, None], name: str) -> None:
        spawned.append(asyncio.create_task(work, name=name))

    await world.run(on_disconnect="continue")
    inbox = await Pushes.open(world.store, "f1")
    await world.reap("f0")
    state = FrontendState(id=frontend)
    readers = Readers(world.store, state, spawn)
    owned = OwnedRequests(world.store, Metrics(), state, readers, spawn)
    dispatcher = PushDispatcher(state, readers, owned)
    for item in await inbox.take():
        dispatcher.dispatch(*item)
    await asyncio.gather(*spawned)
    assert ("r" in owned) == (frontend == "f1")
    owned.lose_all(ErrorType.STATE_LOST, "the test is over")
    assert readers.feeds == {}
    await inbox.close()
