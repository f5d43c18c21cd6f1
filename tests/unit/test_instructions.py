"""An operator's instruction to a replica: kept in Redis until it is followed, whatever messages are lost."""

from __future__ import annotations

import pytest

from lifecycle.errors import Conflict, InvalidValue, NotFound
from lifecycle.queries import instructions
from lifecycle.store.instructions import Instruction
from lifecycle.types import ReplicaAction, ReplicaState, Role
from tests.unit.world import MODEL, World

BY = "operator:ops team"


async def _heartbeat(world: World, followed: Instruction | None = None, state: str = "ready") -> Instruction | None:
    return await world.store.heartbeat("w0", Role.WORKER, {"state": state}, [MODEL], followed=followed)


async def test_an_instruction_comes_with_the_next_heartbeat(world: World) -> None:
    assert await _heartbeat(world) is None
    assert await world.store.instruct("w0", ReplicaAction.PAUSE, BY) == "ok"
    told = await _heartbeat(world)
    assert told is not None
    assert (told.action, told.by) == (ReplicaAction.PAUSE, BY)
    assert await _heartbeat(world) == told, "the reply to the heartbeat before may have been lost"
    assert await _heartbeat(world, told) == told


async def test_an_instruction_of_a_later_release_is_not_followed(world: World) -> None:
    entry = world.store.keys.control + "replica:w0"
    await world.store.command("HSET", entry, "instruction", "1700000000000 dance operator:ops")
    assert await _heartbeat(world) is None


async def test_of_two_instructions_the_later_one_counts(world: World) -> None:
    await world.store.instruct("w0", ReplicaAction.PAUSE, BY)
    first = await _heartbeat(world)
    world.shift_clock(-60.0)  # Redis's clock is put back
    await world.store.instruct("w0", ReplicaAction.RESUME, BY)
    second = await _heartbeat(world, first)
    assert first is not None
    assert second is not None
    assert (second.action, second.revision > first.revision) == (ReplicaAction.RESUME, True)


async def test_what_was_followed_survives_a_loss_of_data(world: World) -> None:
    await world.store.instruct("w0", ReplicaAction.PAUSE, BY)
    told = await _heartbeat(world)
    await world.store.command("DEL", world.store.keys.control + "replica:w0")
    assert await _heartbeat(world, told, "paused") == told
    await world.store.instruct("w0", ReplicaAction.RESUME, BY)
    resumed = await _heartbeat(world, told, "paused")
    assert resumed is not None
    assert resumed.action is ReplicaAction.RESUME


async def test_a_drain_is_not_undone(world: World) -> None:
    await world.store.instruct("w0", ReplicaAction.DRAIN, BY)
    assert await world.store.instruct("w0", ReplicaAction.RESUME, BY) == "draining", "it has not learned of it yet"
    assert await world.store.instruct("w0", ReplicaAction.DRAIN, BY) == "ok"
    await world.store.heartbeat("w1", Role.WORKER, {"state": "draining"}, [MODEL])
    assert await world.store.instruct("w1", ReplicaAction.PAUSE, BY) == "draining", "a signal has drained it"


@pytest.mark.parametrize("action", [ReplicaAction.PAUSE, ReplicaAction.RESUME])
async def test_a_frontend_can_be_drained_only(world: World, action: ReplicaAction) -> None:
    assert await world.store.instruct("f0", action, BY) == "frontend"
    assert await world.store.instruct("f0", ReplicaAction.DRAIN, BY) == "ok"


@pytest.mark.parametrize("action", ReplicaAction)
async def test_who_is_not_listed_is_unknown(world: World, action: ReplicaAction) -> None:
    for unknown in ("w9", "", "w0:about", "a" * 1000):
        assert await world.store.instruct(unknown, action, BY) == "unknown"
    await world.expire("w0")
    assert await world.store.instruct("w0", action, BY) == "unknown"


async def test_the_replica_is_returned_and_an_error_says_what_to_do(world: World) -> None:
    replica = await instructions.instruct(world.store, "w0~2", ReplicaAction.PAUSE, BY)
    assert (replica.id, replica.state) == ("w0", ReplicaState.READY), "it has not followed yet"
    with pytest.raises(NotFound, match="replica w9 is unknown"):
        await instructions.instruct(world.store, "w9", ReplicaAction.DRAIN, BY)
    with pytest.raises(InvalidValue, match="only a worker can pause; drain it"):
        await instructions.instruct(world.store, "f0", ReplicaAction.PAUSE, BY)
    await instructions.instruct(world.store, "w0", ReplicaAction.DRAIN, BY)
    with pytest.raises(Conflict, match="start another worker"):
        await instructions.instruct(world.store, "w0", ReplicaAction.RESUME, BY)
