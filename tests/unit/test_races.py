"""Who wins, for every pair that can race. Each runs on fakeredis and on a real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from lifecycle.errors import ConfigurationConflict, Fenced
from lifecycle.store.results import Append, Drop, Outcome, Start
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.unit.world import LEASE_SECS, World

Act = Callable[[World], Awaitable[object]]


class Race(NamedTuple):
    """A running request without tokens, then two who did not know of each other."""

    name: str
    first: Act
    second: Act
    status: str
    error_type: str
    cancel_mode: str | None = None


async def _cancel(world: World) -> None:
    await world.cancel("kill")


async def _stop(world: World) -> None:
    await world.cancel("stop")


async def _finish(world: World) -> None:
    await world.finish()


async def _fail(world: World) -> None:
    await world.store.fail("r", "response_timeout", "silence")


async def _reap_worker(world: World) -> None:
    await world.reap("w0")


async def _reap_frontend(world: World) -> None:
    await world.reap("f0")


async def _confirm(world: World) -> None:
    await world.finish(outcome=Outcome("cancelled", "cancelled"))


async def _disconnect(world: World) -> None:
    await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)


async def _deadline(world: World) -> None:
    world.shift_clock(20)
    await world.store.sweep(0)


RACES = [
    Race("finish, then cancel", _finish, _cancel, "completed", ""),
    Race("cancel, then finish: the finish confirms it", _cancel, _finish, "cancelled", "cancelled", "kill"),
    Race("stop, then finish", _stop, _finish, "completed", "", "stop"),
    Race("finish, then reap of its worker", _finish, _reap_worker, "completed", ""),
    Race("cancel, then reap of its worker", _cancel, _reap_worker, "cancelled", "cancelled", "kill"),
    Race("stop, then reap of its worker", _stop, _reap_worker, "cancelled", "cancelled", "stop"),
    Race("finish, then reap of its frontend", _finish, _reap_frontend, "completed", ""),
    Race("reap of its frontend, then finish", _reap_frontend, _finish, "failed", "frontend_lost"),
    Race("reap of its frontend, then cancel", _reap_frontend, _cancel, "failed", "frontend_lost"),
    Race("cancel, then reap of its frontend: its worker confirms", _cancel, _reap_frontend, "running", "", "kill"),
    Race("fail, then finish", _fail, _finish, "failed", "response_timeout"),
    Race("finish, then fail", _finish, _fail, "completed", ""),
    Race("cancel, then fail", _cancel, _fail, "running", "", "kill"),
    Race("fail, then cancel", _fail, _cancel, "failed", "response_timeout"),
    Race("stop, then kill", _stop, _cancel, "running", "", "kill"),
    Race("kill, then stop: kill is final", _cancel, _stop, "running", "", "kill"),
    Race("disconnect, then finish", _disconnect, _finish, "cancelled", "cancelled", "kill"),
    Race("finish, then disconnect", _finish, _disconnect, "completed", ""),
    Race("deadline, then finish", _deadline, _finish, "failed", "deadline"),
    Race("finish, then deadline", _finish, _deadline, "completed", ""),
    Race("cancel, then deadline: its worker confirms", _cancel, _deadline, "running", "", "kill"),
    Race("deadline, then cancel", _deadline, _cancel, "failed", "deadline"),
    Race("cancel, then the confirmation", _cancel, _confirm, "cancelled", "cancelled", "kill"),
]


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
async def test_who_wins(world: World, race: Race) -> None:
    await world.run(deadline_secs=10)
    await race.first(world)
    await race.second(world)
    record = await world.record()
    assert (record.status, record.error_type, record.cancel_mode) == (race.status, race.error_type, race.cancel_mode)
    label = "success" if race.status == "completed" else "error"
    assert await world.totals() == ({(label, race.error_type): 1} if record.status.terminal else {})


# before it runs


async def test_a_cancel_before_the_start_wins(world: World) -> None:
    await world.admit()
    delivery = await world.take()
    assert await world.cancel("stop") == "terminal"
    assert await world.start(delivery) == Drop("cancelled")
    assert (await world.record()).attempt == 0


async def test_a_cancel_after_the_start_is_told_to_its_worker(world: World) -> None:
    delivery = await world.run()
    assert await world.cancel() == "pending"
    again = await world.start(delivery)
    assert isinstance(again, Start)
    assert again.cancel_mode == "kill"
    reconciliation = await world.store.reconcile_shard(0, "w0", Role.WORKER, 1)
    assert [(order.rid, order.mode) for order in reconciliation.pending_cancellations] == [("r", "kill")]
    await world.finish()
    assert (await world.store.reconcile_shard(0, "w0", Role.WORKER, 0)).pending_cancellations == []


@pytest.mark.leaves_inflight
async def test_one_delivery_is_started_once(world: World) -> None:
    delivery = await world.run()
    assert isinstance(await world.start(delivery), Start)
    assert await world.start(delivery, "w1") == Drop("taken")
    assert (await world.record()).attempt == 1


@pytest.mark.leaves_inflight
async def test_the_same_nonce_gets_the_first_answer_and_another_is_refused(world: World) -> None:
    first = await world.admit()
    assert await world.admit() == first
    assert (await world.admit(nonce="other")).outcome == "exists"
    assert await world.counts("f0") == {"queued": 1}


@pytest.mark.leaves_inflight
async def test_past_its_limit_the_queue_is_full(world: World) -> None:
    await world.admit("r0")
    await world.admit("r1")
    full = await world.admit("r2")
    assert (full.outcome, full.depth) == ("full", 2)
    await world.start(await world.take())
    assert (await world.admit("r2")).outcome == "admitted"


async def test_overdue_work_never_starts(world: World) -> None:
    await world.admit(queue_timeout_secs=5)
    delivery = await world.take()
    world.shift_clock(6)
    assert await world.start(delivery) == Drop("overdue")
    assert (await world.record()).error_type == "queue_timeout"


async def test_a_request_that_runs_is_past_its_queue_limit(world: World) -> None:
    await world.run(queue_timeout_secs=5)
    world.shift_clock(6)
    assert await world.store.sweep(0) == (0, False)
    await world.finish()


async def test_the_first_token_ends_the_wait_for_it(world: World) -> None:
    await world.run(first_token_timeout_secs=5)
    await world.append(1)
    world.shift_clock(6)
    assert await world.store.sweep(0) == (0, False)
    await world.finish(1)


async def test_a_queue_that_nobody_serves_ends(world: World) -> None:
    await world.admit()
    assert await world.store.sweep(0, ["m"]) == (1, False)
    assert (await world.record()).error_type == "unavailable"


# tokens


async def test_a_repeated_append_is_accepted_and_happens_once(world: World) -> None:
    await world.run()
    assert [await world.append(1), await world.append(1), await world.append(2)] == ["accepted"] * 3
    assert await world.tokens() == "1.1 1.2 "
    assert await world.pushed("f0") == ["1-1", "1-2"]
    await world.finish(2)


async def test_nothing_is_appended_after_a_kill(world: World) -> None:
    await world.run()
    await world.append(1)
    await world.cancel()
    assert await world.append(2) == "closed"
    await world.finish(2)
    assert await world.append(3) == "closed"
    assert await world.tokens() == "1.1 "


async def test_a_stop_lets_through_what_was_generated(world: World) -> None:
    await world.run()
    await world.cancel("stop")
    assert await world.append(1) == "accepted"
    ended = await world.finish(1, outcome=Outcome("completed", finish_reason="length"))
    assert ended.record is not None
    assert (ended.record.status, ended.record.finish_reason) == ("completed", "stop")


async def test_an_earlier_attempt_cannot_append(world: World) -> None:
    await world.run()
    assert await world.store.requeue("r", "w0", attempt=1) == "requeued"
    assert await world.append(1) == "fenced", "given back, and not yet started by another"
    delivery = await world.take("w1")
    await world.start(delivery, "w1")
    assert await world.append(1) == "fenced"
    assert await world.append(1, worker="w1", attempt=2) == "accepted"
    assert (await world.finish(0)).what == "fenced"
    assert await world.append(2) == "fenced"
    await world.finish(1, worker="w1", attempt=2)
    assert await world.tokens() == "2.1 "


async def test_a_buried_worker_can_append_nothing(world: World) -> None:
    await world.run()
    await world.append(1)
    assert await world.reap("w0") == (1, 0, 0)
    with pytest.raises(Fenced):
        await world.append(2)
    record = await world.record()
    assert (record.error_type, record.output_tokens) == ("worker_lost", 1)


async def test_completed_is_refused_until_the_stream_is_whole(world: World) -> None:
    await world.run()
    await world.append(1)
    ended = await world.finish(3)
    assert (ended.what, ended.last) == ("incomplete", 1)
    await world.append(2)
    last = Append("r", 1, 3, b'["1.3 "]', False)
    ended = await world.store.finish("r", "w0", 1, Outcome("completed", finish_reason="stop"), 3, remainder=last)
    assert ended.what == "done"
    assert await world.tokens() == "1.1 1.2 1.3 "


# deaths


async def test_a_request_without_a_token_is_tried_again_but_not_for_ever(world: World) -> None:
    await world.run()
    assert await world.reap("w0") == (0, 1, 0)
    assert (await world.record()).status == "queued"
    await world.start(await world.take("w1"), "w1")
    assert await world.reap("w1") == (1, 0, 0)
    record = await world.record()
    assert (record.status, record.error_type, record.attempt) == ("failed", "worker_lost", 2)


@pytest.mark.leaves_inflight
async def test_what_a_dead_worker_was_handed_and_never_started_goes_to_another(world: World) -> None:
    await world.admit()
    stale = await world.take("w0")
    assert await world.reap("w0") == (0, 1, 0)
    fresh = await world.take("w1")
    assert fresh.queue == "retry"
    assert await world.start(stale, "w1") == Drop("moved")
    assert isinstance(await world.start(fresh, "w1"), Start)


@pytest.mark.leaves_inflight
async def test_what_a_reaped_worker_still_takes_goes_to_another(world: World) -> None:
    await world.reap("w0")
    await world.admit()
    delivery = await world.take("w0")
    for _ in range(2):
        with pytest.raises(Fenced):
            await world.start(delivery, "w0")
    assert isinstance(await world.start(await world.take("w1"), "w1"), Start)


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("queue", ["queue", "retry"])
async def test_what_a_reaped_worker_was_handed_and_never_starts_goes_to_another(world: World, queue: str) -> None:
    """Its link was half-open: Redis still answered its blocked read, and nobody is there to start anything."""
    await world.reap("w0")
    await world.admit()
    if queue == "retry":
        await world.start(await world.take("w1"), "w1")
        await world.store.requeue("r", "w1", attempt=1)
    stale = await world.take("w0")
    assert await world.store.sweep(0, models=["other"]) == (0, False)
    with pytest.raises(AssertionError, match="nothing waits"):
        await world.take("w1")
    for _ in range(2):
        assert await world.store.sweep(0, models=["m"]) == (0, False)
    fresh = await world.take("w1")
    assert await world.start(stale, "w1") == Drop("moved")
    assert isinstance(await world.start(fresh, "w1"), Start)


@pytest.mark.leaves_inflight
async def test_what_a_living_worker_was_handed_stays_its_own(world: World) -> None:
    await world.admit()
    delivery = await world.take("w0")
    assert await world.store.sweep(0, models=["m"]) == (0, False)
    assert isinstance(await world.start(delivery), Start)


@pytest.mark.leaves_inflight
async def test_a_continue_request_moves_its_count_to_the_heir(world: World) -> None:
    await world.run(on_disconnect="continue")
    assert await world.reap("f0", new_owners=("f1",)) == (0, 1, 0)
    assert await world.counts("f0") == {}
    assert await world.counts("f1") == {"running": 1}
    assert (await world.record()).frontend == "f1"
    assert (await world.store.reconcile_shard(0, "f1", Role.FRONTEND, 0, [])).not_held_locally == ["r"]


@pytest.mark.leaves_inflight
async def test_an_heir_that_has_died_meanwhile_inherits_nothing(world: World) -> None:
    await world.run(on_disconnect="continue")
    await world.reap("f1")
    assert await world.reap("f0", new_owners=("f0", "f1")) == (0, 0, 1)
    await world.store.heartbeat("f2", Role.FRONTEND, {}, [])
    assert await world.reap("f0", new_owners=("f0", "f1", "f2")) == (0, 1, 0)
    assert await world.counts("f2") == {"running": 1}


@pytest.mark.leaves_inflight
async def test_a_reader_elsewhere_keeps_the_request_and_inherits_it(world: World) -> None:
    await world.run()
    await world.store.attach("r", "f1", 1)
    lost = await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)
    assert (lost.what, lost.first) == ("continues", True)
    assert await world.reap("f0", new_owners=("f1",)) == (0, 1, 0)
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


# membership


async def test_an_expired_lease_is_judged_and_the_id_never_comes_back(world: World) -> None:
    for _ in range(3):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("w0")
    assert [grave.replica for grave in await world.store.expire()] == ["w0"]
    with pytest.raises(Fenced):
        await world.store.heartbeat("w0", Role.WORKER, {}, ["m"])
    assert "w0" not in {entry.id for entry in (await world.store.roster()).replicas}


async def test_after_a_silence_nobody_is_judged_for_one_lease(world: World) -> None:
    world.shift_clock(LEASE_SECS * 1.5)
    roster = await world.store.roster()
    assert roster.grace, "before the first beat after it, too"
    assert len(roster.replicas) == 4
    assert await world.store.expire() == []
    assert len((await world.store.roster()).replicas) == 4
    for _ in range(3):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("w0")
    assert [grave.replica for grave in await world.store.expire()] == ["w0"]


async def test_a_clock_put_back_judges_nobody_and_shortens_no_lease(world: World) -> None:
    world.shift_clock(-LEASE_SECS * 10)
    assert await world.store.expire() == []
    leases = {entry.id: entry.lease_expires_in_ms for entry in (await world.store.roster()).replicas}
    assert len(leases) == 4
    assert max(leases.values()) <= LEASE_SECS * 1000, "a lease from before must not last ten times as long"
    for _ in range(4):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("w0")
    assert [grave.replica for grave in await world.store.expire()] == ["w0"]


async def test_who_disagrees_on_a_common_setting_does_not_start(world: World) -> None:
    settings = world.store.settings.model_copy(update={"shards": 2})
    other = Store(world.store.commands, settings, plain_lua=True)
    with pytest.raises(ConfigurationConflict, match=r"LIFECYCLE_SHARDS=2 differs from 1"):
        await other.heartbeat("f9", Role.FRONTEND, {}, [])
    for name in ("f0", "f1", "w0", "w1"):
        await world.store.expire(name)
    await other.heartbeat("f9", Role.FRONTEND, {}, [])
