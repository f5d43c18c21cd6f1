"""Each transition notifies the right replicas, counts correctly, and answers a repetition."""

from __future__ import annotations

import pytest

from lifecycle.errors import Fenced
from lifecycle.store.results import Append, Outcome
from lifecycle.types import Role
from tests.unit.world import World

COMPLETED = Outcome("completed", finish_reason="stop")


async def test_nothing_follows_the_end(world: World) -> None:
    await world.run()
    await world.append(1)
    assert (await world.finish(1)).what == "done"
    assert (await world.finish(1)).what == "already"
    assert await world.append(2) == "closed"
    assert await world.tokens() == "1.1 "


@pytest.mark.leaves_inflight
async def test_the_counts_follow_the_request(world: World) -> None:
    await world.admit()
    assert await world.counts("f0") == {"queued": 1}
    await world.take()
    assert await world.counts("f0") == {"running": 1}
    await world.store.requeue("r", "w0", 1)
    assert await world.counts("f0") == {"queued": 1}
    assert (await world.store.reconcile_shard(0, "w0", Role.WORKER, ["r"])).not_in_redis == ["r"]
    await world.take()
    await world.finish(attempt=2)
    assert await world.counts("f0") == {}


@pytest.mark.leaves_inflight
async def test_of_one_worker_too_only_the_present_attempt_counts(world: World) -> None:
    await world.run()
    assert await world.store.requeue("r", "w0", 1) == "requeued"
    assert await world.store.requeue("r", "w0", 1) == "not"
    await world.take()
    assert (await world.finish(attempt=1)).what == "fenced"
    assert await world.store.requeue("r", "w0", 1) == "not"
    assert (await world.record()).status == "running"


async def test_what_was_taken_is_given_back_once(world: World) -> None:
    await world.run()
    assert await world.store.requeue("r", "w0", 1) == "requeued"
    assert await world.store.requeue("r", "w0", 1) == "not"
    await world.take("w1")
    assert await world.store.requeue("r", "w0", 1) == "not"
    await world.finish(worker="w1", attempt=2)


async def test_the_last_tokens_travel_with_the_end_and_reach_the_readers(world: World) -> None:
    await world.run()
    await world.append(1)
    behind_a_gap = Append("r", 1, 4, b'["1.3 ","1.4 "]', False)
    ended = await world.store.finish("r", "w0", 1, COMPLETED, 4, remainder=behind_a_gap)
    assert (ended.what, ended.last) == ("incomplete", 1)
    whole = Append("r", 1, 3, b'["1.2 ","1.3 "]', False)
    assert (await world.store.finish("r", "w0", 1, COMPLETED, 3, remainder=whole)).what == "done"
    assert await world.tokens() == "1.1 1.2 1.3 "
    assert await world.pushed("f0") == ["1-1", "1-3"]


@pytest.mark.parametrize("there", [0, 1])
@pytest.mark.parametrize("outcome", [Outcome("failed", "engine_error"), Outcome("cancelled")], ids=lambda o: o.status)
async def test_last_tokens_behind_a_hole_are_left_out_of_what_has_failed(
    world: World, outcome: Outcome, there: int
) -> None:
    """Redis has lost the second token. Such an end needs no whole answer, and no reader may get a text with a hole."""
    await world.run()
    if there:
        await world.append(1)
    behind_a_hole = Append("r", 1, 4, b'["1.3 ","1.4 "]', False)
    assert (await world.store.finish("r", "w0", 1, outcome, 4, remainder=behind_a_hole)).what == "done"
    assert (await world.record()).status == outcome.status
    assert await world.tokens() == "1.1 " * there
    assert await world.pushed("f0") == ["1-1"] * there


async def test_a_worker_whose_start_was_lost_in_a_failover_cannot_write_into_another_s_attempt(world: World) -> None:
    """Both run attempt 1, so the entry ids alone would let the numbers of the one into the stream of the other."""
    await world.run()
    await world.append(1)
    await world.forget_start()
    await world.take("w1")
    assert await world.append(2, worker="w0") == "fenced"
    assert await world.append(1, worker="w1") == "accepted"
    assert await world.tokens() == "1.1 "
    await world.finish(1, worker="w1")


@pytest.mark.parametrize("known", [0, 1, 2, 3])
async def test_of_the_last_tokens_only_those_are_appended_that_are_not_there_yet(world: World, known: int) -> None:
    """An append was executed and its reply lost: the worker cannot know how far the stream goes."""
    await world.run()
    await world.append(1)
    for number in range(2, 2 + known):
        await world.append(number)
    last = Append("r", 1, 4, b'["1.2 ","1.3 ","1.4 "]', False)
    assert (await world.store.finish("r", "w0", 1, COMPLETED, 4, remainder=last)).what == "done"
    assert await world.append(2) == "closed"
    assert await world.tokens() == "1.1 1.2 1.3 1.4 "
    assert (await world.record()).output_tokens == 4
    pushed = [f"1-{number}" for number in range(1, 2 + known)] + (["1-4"] if known < 3 else [])
    assert await world.pushed("f0") == pushed


@pytest.mark.leaves_inflight
async def test_tokens_reach_the_new_owner_and_no_expired_replica(world: World) -> None:
    await world.run(on_disconnect="continue")
    await world.append(1)
    await world.reap("f0")
    await world.append(2)
    assert await world.pushed("f0") == ["1-1"]
    assert await world.pushed("f1") == ["1-2"]


async def test_a_dead_reader_is_pushed_nothing(world: World) -> None:
    await world.run()
    await world.store.attach("r", "f1", 1)
    await world.reap("f1")
    await world.append(1)
    await world.finish(1)
    assert await world.pushed("f1") == []
    assert await world.pushed("f0") == ["1-1"]


async def test_one_loss_of_the_client_is_counted_once(world: World) -> None:
    await world.run(on_disconnect="continue")
    answers = [
        await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=admitting)
        for admitting in (False, True, True)
    ]
    assert [answer.first for answer in answers] == [False, True, False]
    await world.finish()


async def test_each_loss_of_the_last_reader_has_its_own_grace(world: World) -> None:
    await world.run(grace_secs=5)
    await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)
    world.shift_clock(3)
    await world.store.attach("r", "f1", 1)
    await world.store.disconnect("r", "f1", 0, "closed_unexpectedly", admitting=False)
    world.shift_clock(3)
    await world.store.sweep(0)
    assert (await world.record()).cancel_mode is None
    world.shift_clock(3)
    await world.store.sweep(0)
    assert (await world.record()).cancel_mode == "kill"
    await world.finish()


async def test_a_frontend_gives_up_only_on_what_it_has_seen(world: World) -> None:
    await world.run()
    await world.append(1)
    assert (await world.store.fail("r", "response_timeout", "silence", seen=0)).what == "moved"
    assert (await world.store.fail("r", "response_timeout", "silence", seen=1)).what == "done"


async def test_the_worker_of_a_failed_request_is_ordered_to_kill_it_whatever_was_asked_before(world: World) -> None:
    await world.run()
    await world.cancel("stop")
    await world.store.fail("r", "slow_consumer", "takes nothing")
    reconciliation = await world.store.reconcile_shard(0, "w0", Role.WORKER)
    assert [(order.rid, order.mode) for order in reconciliation.pending_cancellations] == [("r", "kill")]
    assert (await world.finish()).what == "already"
    assert (await world.store.reconcile_shard(0, "w0", Role.WORKER)).pending_cancellations == []


async def test_an_expired_replica_is_fenced_when_it_reconciles(world: World) -> None:
    for name, role in (("w0", Role.WORKER), ("f0", Role.FRONTEND)):
        await world.reap(name)
        with pytest.raises(Fenced):
            await world.store.reconcile_shard(0, name, role)


async def test_reconciliations_bring_back_exceptions_only(world: World) -> None:
    await world.run()
    reconciliation = await world.store.reconcile_shard(0, "w0", Role.WORKER)
    assert (
        reconciliation.held,
        reconciliation.pending_cancellations,
        reconciliation.not_in_redis,
        reconciliation.not_held_locally,
    ) == (1, [], [], [])
    reconciliation = await world.store.reconcile_shard(0, "w0", Role.WORKER, ["other"])
    assert (reconciliation.not_in_redis, reconciliation.not_held_locally) == (["other"], ["r"])
    assert reconciliation.epoch == (await world.store.reconcile_shard(0, "w1", Role.WORKER)).epoch
    await world.finish()


@pytest.mark.leaves_inflight
async def test_a_stream_that_is_none_is_one_request_s_trouble_alone(world: World) -> None:
    await world.run("r0")
    await world.run("r1")
    await world.store.command("DEL", f"{world.prefix}tokens:r0")
    await world.store.command("SET", f"{world.prefix}tokens:r0", "not a stream")
    flush = [Append(rid, 1, 1, b'["1.1 "]', True) for rid in ("r0", "r1")]
    assert await world.store.append(0, "w0", flush) == [(flush[0], "gone")]
    assert await world.tokens("r1") == "1.1 "
    assert await world.pushed("f0") == ["1-1"]
    await world.store.command("DEL", f"{world.prefix}tokens:r0")


async def test_a_slow_client_ends_no_request_that_others_read(world: World) -> None:
    await world.run()
    await world.store.attach("r", "f1", 1)
    refused = await world.store.fail("r", "slow_consumer", "The client read nothing")
    assert (refused.what, (await world.record()).status.value) == ("moved", "running")
    await world.store.attach("r", "f1", 0)
    assert (await world.store.fail("r", "slow_consumer", "The client read nothing")).what == "done"
