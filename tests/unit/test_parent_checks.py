"""Requests that others have started: whose turn it is that their parents are looked at."""

from __future__ import annotations

import pytest

from lifecycle.store.new_request import Parent
from tests.unit.world import World

_CHECK_SECS = 4.0


@pytest.mark.leaves_inflight
async def test_a_child_is_looked_at_again_and_again_by_one_replica_at_a_time(world: World) -> None:
    """Its parent may end much later, and whoever has looked at it may die before it ends the child."""
    await world.admit(parent=Parent("p", "1.0", 2))
    for _ in range(3):
        world.shift_clock(_CHECK_SECS + 1.0)
        claimed = await world.store.claim_children(0, _CHECK_SECS)
        assert [(child.rid, child.parent) for child in claimed.children] == [("r", "p")]
        assert (await world.store.claim_children(0, _CHECK_SECS)).children == []


async def test_a_child_that_has_ended_is_looked_at_no_more(world: World) -> None:
    await world.admit(parent=Parent("p", "1.0", 2))
    await world.take()
    await world.finish()
    world.shift_clock(_CHECK_SECS + 1.0)
    assert (await world.store.claim_children(0, _CHECK_SECS)).children == []
