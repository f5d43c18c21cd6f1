"""The scripts of preemption: what a worker without a free slot takes, when it is rung, and what a move leaves."""

from __future__ import annotations

import pytest

from lifecycle.cli.why import lines
from lifecycle.queries import timeline
from lifecycle.store.results import Outcome
from lifecycle.types import Role
from tests.joining import join
from tests.unit.world import MODEL, World

pytestmark = pytest.mark.leaves_inflight


async def waiting(world: World) -> list[str]:
    """Return the workers that wait, in the order in which they are rung."""
    return [worker.decode() for worker in await world.store.command("ZRANGE", f"{world.prefix}waiting:{MODEL}", 0, -1)]


@pytest.fixture(autouse=True)
async def roomy(world: World) -> None:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 100}))


async def virtual_time(world: World, owner: str = "") -> float:
    return float(await world.store.command("ZSCORE", f"{world.prefix}virtual_times:{MODEL}", owner))


@pytest.mark.parametrize(("priority", "is_taken"), [(-9, True), (4, True), (5, False), (6, False)])
async def test_only_what_is_better_than_the_running_one_is_taken(world: World, priority: int, is_taken: bool) -> None:
    await world.run("running", resumable=True, priority=5)
    await world.admit("r", priority=priority)
    taken = await world.take_all(gives_up=5, resumable=True)
    assert [run.rid for run in taken.runs] == ["r"] * is_taken
    assert (taken.waits, await waiting(world)) == ((False, []) if is_taken else (True, ["w0"]))


async def test_the_best_is_taken_and_the_others_stay(world: World) -> None:
    await world.run("running", priority=5)
    for rid, priority in (("nine", 9), ("three", 3), ("minus", -2), ("five", 5)):
        await world.admit(rid, priority=priority)
    assert [run.rid for run in (await world.take_all(slots=3, gives_up=5)).runs] == ["minus", "three"]


async def test_a_repetition_brings_the_same_and_moves_nobody_else(world: World) -> None:
    await world.run("running", priority=5)
    await world.admit("a", priority=1)
    await world.admit("b", priority=2)
    first = await world.take_all(gives_up=5)
    assert (await world.take_again(gives_up=5)).runs == first.runs
    assert [run.rid for run in first.runs] == ["a"]
    assert (await world.record("b")).status == "queued"


async def test_who_has_a_free_slot_is_rung_first_then_who_runs_the_worst(world: World) -> None:
    for name in ("w2", "w3"):
        await join(world.store, name, Role.WORKER, models=[MODEL])
    for worker, priority in (("w0", 5), ("w1", 9), ("w2", -3)):
        assert (await world.take_all(worker, slots=0, gives_up=priority)).waits
    await world.take_all("w3")
    assert await waiting(world) == ["w3", "w1", "w0", "w2"]
    for number, left in enumerate((["w1", "w0", "w2"], ["w0", "w2"], ["w2"], ["w2"])):
        await world.admit(f"r{number}", priority=0)
        assert await waiting(world) == left


async def test_nobody_is_rung_for_a_request_of_the_same_priority(world: World) -> None:
    await world.take_all(slots=0, gives_up=5)
    await world.admit("same", priority=5)
    await world.admit("worse", priority=7)
    assert await waiting(world) == ["w0"]
    await world.admit("better", priority=4)
    assert await waiting(world) == []


async def test_who_begins_to_wait_is_rung_for_what_waits_already(world: World) -> None:
    await world.admit("r", priority=0)
    assert (await world.take_all(slots=0, gives_up=5)).runs == []
    assert await waiting(world) == []
    await world.take_all(slots=0, gives_up=0)
    assert await waiting(world) == ["w0"], "it is not better than what this worker would move"


async def test_a_worker_that_does_not_hear_its_bell_is_told_by_its_heartbeat(world: World) -> None:
    await world.take_all(slots=0, gives_up=5)
    assert not (await world.store.reconcile_shard(0, "w0", Role.WORKER, models=[MODEL], waits=True)).takes
    await world.admit("r", priority=0)
    assert (await world.store.reconcile_shard(0, "w0", Role.WORKER, models=[MODEL], waits=True)).takes


async def test_a_move_is_counted_apart_from_attempts_and_told(world: World) -> None:
    await world.run("r", resumable=True, priority=5)
    await world.append(1)
    for attempt, by in ((1, -4), (2, 0)):
        assert await world.store.requeue("r", "w0", attempt, preempted_by=by) == "requeued"
        assert await world.store.requeue("r", "w0", attempt, preempted_by=by) == "not", "a repetition"
        assert (await world.record()).preemptions == attempt
        start = (await world.take(resumable=True)).start
        assert (start.attempt, start.preemptions, start.base) == (attempt + 1, attempt, 1)
    assert await world.store.command("HGET", f"{world.prefix}request:r", "failures") is None
    found = await timeline.read(world.store, "r")
    assert found is not None
    told = [entry.details for entry in found.entries if entry.what == "attempt_ended"]
    assert [(entry["outcome"], entry["preempted_by"]) for entry in told] == [("preempted", -4), ("preempted", 0)]
    assert "preempted by a request of priority -4" in "\n".join(lines(found))


async def test_a_move_of_a_cancelled_request_ends_it(world: World) -> None:
    await world.run("r", resumable=True, priority=5)
    await world.cancel("stop")
    assert await world.store.requeue("r", "w0", 1, preempted_by=0) == "ended"
    record = await world.record()
    assert (record.status, record.preemptions) == ("cancelled", 0)


@pytest.mark.parametrize("moves", [0, 1, 3])
async def test_its_owner_pays_once_for_what_was_moved(world: World, moves: int) -> None:
    for rid, owner in (("r", "a"), ("other", "b")):  # b waits all the time, so that the model's virtual time stands
        await world.admit(rid, priority=5, owner=owner, prompt_tokens=10, max_tokens=50)
    await world.take(resumable=True)
    for attempt in range(1, moves + 1):
        await world.append(attempt, attempt=attempt)
        assert await virtual_time(world, "a") == 60
        await world.store.requeue("r", "w0", attempt, preempted_by=0)
        assert await virtual_time(world, "a") == 0
        assert (await world.take(resumable=True)).rid == "r"
    await world.append(moves + 1, attempt=moves + 1)
    await world.finish(moves + 1, attempt=moves + 1, outcome=Outcome("completed", finish_reason="stop"))
    assert await virtual_time(world, "a") == 10 + moves + 1


async def test_a_moved_request_comes_first_among_those_of_its_owner(world: World) -> None:
    await world.run("first", resumable=True, priority=5)
    await world.admit("second", priority=5)
    await world.store.requeue("first", "w0", 1, preempted_by=0)
    assert (await world.take(resumable=True)).rid == "first"
