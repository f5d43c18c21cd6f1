"""Requests of replicas that have died: which ones end, move to another replica, or wait."""

from __future__ import annotations

import pytest

from lifecycle.errors import Fenced
from lifecycle.types import Role
from tests.joining import join
from tests.unit.world import World


async def test_a_request_without_a_token_is_tried_again_but_not_for_ever(world: World) -> None:
    await world.run()
    assert await world.reap("w0") == (0, 1, 0)
    assert (await world.record()).status == "queued"
    await world.take("w1")
    assert await world.reap("w1") == (1, 0, 0)
    record = await world.record()
    assert (record.status, record.error_type, record.attempt) == ("failed", "worker_lost", 2)


@pytest.mark.leaves_inflight
async def test_what_a_dead_worker_has_taken_goes_to_another(world: World) -> None:
    """It may have died before the answer to its take came."""
    await world.run()
    assert await world.reap("w0") == (0, 1, 0)
    with pytest.raises(Fenced):
        await world.take_again("w0")
    assert (await world.take("w1")).start.attempt == 2


@pytest.mark.leaves_inflight
async def test_a_reaped_worker_takes_nothing(world: World) -> None:
    await world.reap("w0")
    await world.admit()
    for _ in range(2):
        with pytest.raises(Fenced):
            await world.take("w0")
    assert await world.take("w1")


@pytest.mark.leaves_inflight
async def test_a_continue_request_moves_its_count_to_the_new_owner(world: World) -> None:
    await world.run(on_disconnect="continue")
    assert await world.reap("f0") == (0, 1, 0)
    assert await world.counts("f0") == {}
    assert await world.counts("f1") == {"running": 1}
    assert (await world.record()).frontend == "f1"
    assert (await world.store.reconcile_shard(0, "f1", Role.FRONTEND, [])).not_held_locally == ["r"]


@pytest.mark.leaves_inflight
async def test_a_new_owner_that_has_expired_meanwhile_gets_nothing(world: World) -> None:
    await world.run(on_disconnect="continue")
    await world.reap("f1")
    assert await world.reap("f0") == (0, 0, 1)
    await join(world.store, "f2", Role.FRONTEND, {}, [])
    assert await world.reap("f0") == (0, 1, 0)
    assert await world.counts("f2") == {"running": 1}


@pytest.mark.leaves_inflight
async def test_a_reader_elsewhere_keeps_the_request_and_inherits_it(world: World) -> None:
    await world.run()
    await world.store.attach("r", "f1", 1)
    lost = await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)
    assert (lost.what, lost.first) == ("continues", True)
    assert await world.reap("f0") == (0, 1, 0)
    assert (await world.store.disconnect("r", "f1", 0, "closed_unexpectedly", admitting=False)).what == "pending"


async def test_a_reader_that_comes_back_within_the_grace_keeps_the_request(world: World) -> None:
    await world.run(grace_secs=5)
    for _ in range(2):
        lost = await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)
        assert lost.what == "grace"
    await world.store.attach("r", "f1", 1)
    world.shift_clock(6)
    await world.store.sweep(0)
    assert (await world.record()).cancel_mode is None
    await world.store.disconnect("r", "f1", 0, "closed_unexpectedly", admitting=False)
    world.shift_clock(6)
    await world.store.sweep(0)
    assert (await world.record()).cancel_mode == "kill"
    await world.finish()


@pytest.mark.leaves_inflight
async def test_a_dead_frontend_admits_and_attaches_nothing(world: World) -> None:
    await world.admit()
    await world.reap("f1")
    assert (await world.admit("r1", frontend="f1")).outcome == "fenced"
    with pytest.raises(Fenced):
        await world.store.attach("r", "f1", 1)
