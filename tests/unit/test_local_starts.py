"""A request that runs in the process of its frontend: admitted and started at once, and lost with that process."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.errors import Fenced
from lifecycle.store.new_request import Parent
from lifecycle.store.results import Outcome, Reaped, Start
from lifecycle.types import Labels, Role, Status
from tests.admitting import new_request
from tests.unit.world import World

AGENT = Labels("my-agent", "agent", "stream")


async def track(world: World, rid: str = "r", *, nonce: str = "n", **more: Any) -> Start | str:
    request = new_request(rid, nonce, AGENT, "f0", b"", more.pop("on_disconnect", "cancel"), **more)
    return await world.store.track(request)


async def test_it_is_running_at_once_and_counted_once(world: World) -> None:
    start = await track(world, owner="acme", parent=Parent("p", "1.0", 2), own_labels=b'{"team":"a"}')
    assert isinstance(start, Start)
    assert await track(world, owner="acme", parent=Parent("p", "1.0", 2), own_labels=b'{"team":"a"}') == start
    assert await track(world, nonce="other") == "exists"
    record = await world.record()
    assert (record.status, record.attempt, record.frontend, record.worker) == (Status.RUNNING, 1, "f0", "f0")
    assert (record.owner, record.parent, record.labels) == ("acme", "p", {"team": "a"})
    assert record.counted_as == AGENT
    assert await world.counts("f0") == {"running": 1}
    assert await world.append(1, worker="f0") == "accepted"
    assert (await world.finish(1, worker="f0")).what == "done"
    assert await world.counts("f0") == {}
    assert await world.totals() == {("success", ""): 1}
    assert await world.pushed("f0") == ["1-1"]


async def test_a_cancel_is_confirmed_by_its_frontend(world: World) -> None:
    await track(world)
    assert await world.cancel() == "pending"
    assert await world.append(1, worker="f0") == "closed"
    missed = (await world.store.reconcile_shard(0, "f0", Role.FRONTEND)).pending_cancellations
    assert [(cancel.rid, cancel.mode) for cancel in missed] == [("r", "kill")]
    await world.finish(0, worker="f0")
    assert (await world.record()).status is Status.CANCELLED
    assert (await world.store.reconcile_shard(0, "f0", Role.FRONTEND)).pending_cancellations == []


@pytest.mark.parametrize("more", [{}, {"on_disconnect": "continue"}, {"grace_secs": 60.0}])
async def test_it_is_lost_with_its_process(world: World, more: dict[str, Any]) -> None:
    await track(world, **more)
    await world.append(1, worker="f0")
    await world.store.attach("r", "f1", 1)  # somebody reads it elsewhere
    assert await world.reap("f0") == (1, 0, 0)
    record = await world.record()
    assert (record.status, record.error_type) == (Status.FAILED, "worker_lost")
    with pytest.raises(Fenced):
        await world.append(2, worker="f0")
    assert (await world.finish(1, worker="f0")).what == "already"
    assert await world.totals() == {("error", "worker_lost"): 1}


async def test_one_without_an_event_is_not_queued(world: World) -> None:
    await track(world)
    assert await world.reap("f0") == (1, 0, 0)
    assert (await world.record()).error_type == "worker_lost"


async def test_a_pending_cancel_is_confirmed_by_the_loss(world: World) -> None:
    await track(world)
    await world.cancel()
    await world.reap("f0")
    assert (await world.record()).status is Status.CANCELLED


async def test_what_was_only_admitted_there_moves_as_before(world: World) -> None:
    await track(world)
    await world.run("q", on_disconnect="continue")
    assert await world.reap("f0") == (1, 1, 0)
    assert (await world.record("q")).frontend == "f1"
    await world.finish(rid="q")


async def test_many_are_lost_in_bounded_steps(world: World) -> None:
    for number in range(25):
        await track(world, f"r{number}")
    expired = await world.expire("f0")
    steps: list[Reaped] = []
    while not steps or not steps[-1].done:
        steps.append(await world.store.reap(0, expired))
    assert [step.ended for step in steps] == [10, 10, 5]
    assert await world.totals() == {("error", "worker_lost"): 25}


async def test_a_deadline_ends_it_and_is_told_to_its_frontend(world: World) -> None:
    await track(world, deadline_secs=5.0)
    world.shift_clock(6)
    assert await world.store.sweep(0) == (1, False, 0)
    assert (await world.record()).error_type == "deadline"
    missed = (await world.store.reconcile_shard(0, "f0", Role.FRONTEND)).pending_cancellations
    assert [cancel.mode for cancel in missed] == ["kill"]
    await world.finish(worker="f0", outcome=Outcome("cancelled", "cancelled", "cancelled"))
    assert (await world.store.reconcile_shard(0, "f0", Role.FRONTEND)).pending_cancellations == []


async def test_an_expired_frontend_tracks_nothing(world: World) -> None:
    await world.reap("f0")
    assert await track(world) == "fenced"
