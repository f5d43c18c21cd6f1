"""`lifecycle replicas --wait` ends when nothing more can come."""

from __future__ import annotations

import asyncio

from lifecycle.cli.replicas import _wait_until_followed
from lifecycle.queries import instructions
from lifecycle.types import ReplicaAction, Role
from tests.unit.world import World


async def test_nobody_waits_for_a_replica_that_has_left(world: World) -> None:
    replica = await instructions.instruct(world.store, "w0", ReplicaAction.PAUSE, "operator:cli")
    await world.store.leave("w0", Role.WORKER)
    async with asyncio.timeout(5):
        assert await _wait_until_followed(world.store, replica, ReplicaAction.PAUSE, 60) is None
