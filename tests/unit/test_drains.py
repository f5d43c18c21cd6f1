"""A rolling restart of the workers moves a request from worker to worker: each one that drains gives it to the next.

Such a move is no failure, so a request that is only moved goes on, however often that is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest

from lifecycle.store.results import Append, Start
from lifecycle.store.transitions import Store
from tests.unit.world import World

_DRAINS = 5  # more than max_attempts


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    world = World(store)
    await world.open()
    yield world
    await world.close()


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("resumable", [False, True], ids=["before its first token", "with tokens"])
async def test_a_request_outlives_more_drains_than_it_has_attempts(world: World, resumable: bool) -> None:
    await world.admit()
    for number in range(1, _DRAINS + 1):
        worker = f"w{number}"
        start = (await world.take(worker, resumable=resumable)).start
        assert isinstance(start, Start), start
        if resumable:
            token = Append("r", start.attempt, start.base + 1, orjson.dumps(["t"]), number == 1)
            assert await world.store.append(0, worker, [token]) == []

        moved = await world.store.requeue("r", worker, start.attempt)

        record = await world.record()
        assert moved == "requeued", f"drain {number}: {moved}, {record.error_type}: {record.error_message}"
    assert (await world.record()).status == "queued"
    workers = [f"w{number}" for number in range(2, _DRAINS + 1)]
    for key in ("ticks", "taken"):
        await world.store.command("HDEL", world.prefix + key, *workers)  # which have no leases
