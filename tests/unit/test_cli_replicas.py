"""`lifecycle replicas --wait` ends when nothing more can come."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.cli.replicas import _wait_until_followed
from lifecycle.errors import StoreUnavailable
from lifecycle.queries import instructions
from lifecycle.store.instructions import Fate
from lifecycle.types import ReplicaAction, Role
from tests.unit.world import World


async def test_nobody_waits_for_a_replica_that_has_left(world: World) -> None:
    replica = await instructions.instruct(world.store, "w0", ReplicaAction.PAUSE, "operator:cli")
    await world.store.heartbeat("w0", Role.WORKER, {"finished": True}, [])
    await world.store.leave("w0", Role.WORKER)
    async with asyncio.timeout(5):
        _, fate = await _wait_until_followed(world.store, replica, ReplicaAction.PAUSE, 60)
    assert fate == "left"


async def test_a_wait_goes_on_while_redis_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = world.store, 0
    fate_of = store.fate_of

    async def sometimes(replica: str) -> Fate:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreUnavailable("Redis fails over")
        return await fate_of(replica)

    monkeypatch.setattr(store, "fate_of", sometimes)
    replica = await instructions.instruct(store, "w0", ReplicaAction.DRAIN, "operator:cli")
    await store.leave("w0", Role.WORKER)
    async with asyncio.timeout(5):
        _, fate = await _wait_until_followed(store, replica, ReplicaAction.DRAIN, 60)
    assert (fate, asked) == ("expired", 3)
    asked = 0
    with pytest.raises(StoreUnavailable):
        await _wait_until_followed(store, replica, ReplicaAction.DRAIN, 0.1)
