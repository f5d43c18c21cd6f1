"""The inflight counts of a shard: kept with each transition, for each frontend and as a sum over all of them."""

from __future__ import annotations

from lifecycle.types import Labels, Role
from tests.admitting import CHAT
from tests.unit.world import LEASE_SECS, World

OTHER = Labels("m", "completions", "unary")


async def test_each_status_is_counted_by_labels_over_all_frontends(world: World) -> None:
    await world.run("r0")
    await world.run("r1", frontend="f1")
    await world.run("r2", labels=OTHER)
    await world.admit("r3", labels=OTHER)
    await world.admit("r4", frontend="f1")
    assert await world.store.count_inflight(0) == {CHAT: (1, 2), OTHER: (1, 1)}
    assert await world.store.count_held(0, Role.FRONTEND, "m") == {"f0": 3, "f1": 2}
    assert await world.store.count_held(0, Role.FRONTEND, "another") == {}
    await world.finish(rid="r0")
    await world.finish(rid="r2")
    assert await world.store.requeue("r1", "w0", 1) == "requeued"
    assert await world.store.count_inflight(0) == {CHAT: (2, 0), OTHER: (1, 0)}
    for rid in ("r1", "r3", "r4"):
        await world.cancel(rid=rid)
    assert await world.store.count_inflight(0) == {}
    assert await world.counts("f0") == await world.counts("f1") == {}


async def test_a_frontend_counts_until_its_lease_has_ended_although_nobody_sweeps(world: World) -> None:
    await world.run("r0")
    await world.admit("r1", frontend="f1", on_disconnect="continue")
    for _ in range(3):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("f1")
    assert await world.store.count_inflight(0) == {CHAT: (0, 1)}
    assert await world.reap("f1") == (0, 1, 0)
    assert await world.store.count_inflight(0) == {CHAT: (1, 1)}, "it goes on under another one"
    await world.cancel(rid="r1")
    await world.finish(rid="r0")
