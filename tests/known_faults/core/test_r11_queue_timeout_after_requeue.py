"""A request with a queue timeout is started, and then queued again, because its worker leaves or has died.

Its limit was removed at the first start and is not set again: it may wait in the queue for ever. Expected: the limit
holds whenever the request waits in the queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lifecycle.store.transitions import Store
from tests.unit.world import World

_QUEUE_TIMEOUT_SECS = 1.0


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    world = World(store)
    await world.open()
    yield world
    await world.close()


async def test_a_request_that_has_never_started_ends_by_its_queue_timeout(world: World) -> None:
    await world.admit(queue_timeout_secs=_QUEUE_TIMEOUT_SECS)

    world.shift_clock(_QUEUE_TIMEOUT_SECS + 0.5)
    await world.store.sweep(0)

    assert (await world.record()).status == "failed"


@pytest.mark.leaves_inflight
async def test_a_request_that_is_queued_again_ends_by_its_queue_timeout(world: World) -> None:
    await world.run(queue_timeout_secs=_QUEUE_TIMEOUT_SECS)
    assert await world.store.requeue("r", "w0", 1) == "requeued"

    world.shift_clock(_QUEUE_TIMEOUT_SECS + 0.5)
    await world.store.sweep(0)

    assert (await world.record()).status == "failed"
