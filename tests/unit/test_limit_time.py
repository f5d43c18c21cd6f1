"""Time limits run on a clock that leaves out the steps of Redis's clock, and counts the time that has passed."""

from __future__ import annotations

import pytest

from lifecycle.types import Role
from tests.unit.world import World

LIMIT_SECS = 300.0
HEARTBEAT_SECS = 2.0
HOUR_SECS = 3600.0


async def _passes(world: World, secs: float, *, elapsed_secs: float | None = None) -> str:
    """Let Redis's clock advance, let a replica reconcile and sweep, and return the error of the request, if any."""
    world.shift_clock(secs)
    await world.store.reconcile_shard(0, "f0", Role.FRONTEND, elapsed_secs=elapsed_secs)
    return await _swept(world)


async def _swept(world: World) -> str:
    await world.store.sweep(0)
    record = await world.record()
    return record.error_type if record.status.terminal else ""


@pytest.fixture(autouse=True)
async def running(world: World) -> None:
    """Run a request with a deadline in a shard where a replica has just been."""
    await world.store.reconcile_shard(0, "f0", Role.FRONTEND)
    await world.run(deadline_secs=LIMIT_SECS)


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("step_secs", [HOUR_SECS, -HOUR_SECS])
async def test_a_step_of_the_clock_is_left_out(world: World, step_secs: float) -> None:
    assert await _passes(world, step_secs, elapsed_secs=HEARTBEAT_SECS) == ""
    assert await _passes(world, LIMIT_SECS - 60, elapsed_secs=LIMIT_SECS - 60) == ""


async def test_a_limit_ends_a_request_in_time_behind_a_step(world: World) -> None:
    await _passes(world, HOUR_SECS, elapsed_secs=HEARTBEAT_SECS)
    assert await _passes(world, LIMIT_SECS + 1, elapsed_secs=LIMIT_SECS + 1) == "deadline"


async def test_time_that_a_replica_has_seen_pass_counts(world: World) -> None:
    """Redis was out of reach for longer than the limit."""
    assert await _passes(world, HOUR_SECS, elapsed_secs=HOUR_SECS) == "deadline"


@pytest.mark.leaves_inflight
async def test_nothing_ends_before_somebody_can_tell(world: World) -> None:
    world.shift_clock(HOUR_SECS)
    assert await _swept(world) == "", "a sweep comes before any reconciliation"
    await world.store.reconcile_shard(0, "f1", Role.FRONTEND)
    assert await _swept(world) == "", "a new replica does not know how much time has passed"


@pytest.mark.leaves_inflight
async def test_what_is_admitted_behind_a_step_has_its_whole_time(world: World) -> None:
    world.shift_clock(HOUR_SECS)
    await world.run("late", deadline_secs=LIMIT_SECS)
    await world.store.reconcile_shard(0, "f0", Role.FRONTEND, elapsed_secs=HEARTBEAT_SECS)
    world.shift_clock(LIMIT_SECS - 60)
    await world.store.reconcile_shard(0, "f0", Role.FRONTEND, elapsed_secs=LIMIT_SECS - 60)
    await world.store.sweep(0)
    assert not (await world.record("late")).status.terminal
