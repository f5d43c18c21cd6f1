"""Waits are told as the scripts serve the queue."""

from __future__ import annotations

import random

import pytest

from lifecycle.queries import queues
from lifecycle.queries.start_order import drain_per_sec, position_of
from lifecycle.store.results import Outcome
from lifecycle.store.shard_queues import REQUESTS_LIMIT, read_shard_queue
from tests.unit.world import MODEL, World


@pytest.fixture
async def roomy(world: World) -> World:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 20_000}))
    return world


async def position(world: World, rid: str) -> int | None:
    queue = await read_shard_queue(world.store, 0, MODEL, rid)
    return None if queue.place is None else position_of(queue, *queue.place)


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("seed", range(12))
async def test_requests_start_in_the_order_of_their_positions(roomy: World, seed: int) -> None:
    chance = random.Random(seed)
    rids = [f"r{number}" for number in range(30)]
    for rid in rids:
        owner = chance.choice(("a", "b", "c", ""))
        await roomy.admit(
            rid,
            owner=owner,
            weight={"a": 4, "b": 1, "c": 0.5, "": 1}[owner],
            priority=chance.choice((0, 0, 0, -5, 7)),
            prompt_tokens=chance.randint(0, 50),
            max_tokens=chance.choice((None, 0, 10, 400)),
        )
        if chance.random() < 0.3:  # some owners are ahead of the others when the positions are asked for
            await roomy.take()
    waiting = {rid: place for rid in rids if (place := await position(roomy, rid)) is not None}
    assert sorted(waiting.values()) == list(range(1, len(waiting) + 1))
    for rid in sorted(waiting, key=waiting.__getitem__):
        assert (await roomy.take()).rid == rid
    assert [await position(roomy, rid) for rid in rids] == [None] * len(rids)


@pytest.mark.leaves_inflight
async def test_a_record_tells_its_wait_while_it_is_queued(roomy: World) -> None:
    for rid in ("r0", "r1", "r2"):
        await roomy.admit(rid)
    assert (await queues.with_wait(roomy.store, await roomy.record("r2"))).queue_position == 3
    shown = (await queues.with_wait(roomy.store, await roomy.record("r1"))).to_json()
    assert (shown["queue_position"], shown["estimated_wait_secs"]) == (2, None)  # nothing has ended yet
    await roomy.take()
    running = (await queues.with_wait(roomy.store, await roomy.record("r0"))).to_json()
    assert "queue_position" not in running
    assert "estimated_wait_secs" not in running


@pytest.mark.leaves_inflight
async def test_the_queue_is_told_by_model_and_owner(roomy: World) -> None:
    await roomy.admit("ended")
    await roomy.take()
    roomy.shift_clock(2)
    await roomy.finish(rid="ended", outcome=Outcome("completed"))
    await roomy.admit("a0", owner="a", weight=4)
    roomy.shift_clock(5)
    await roomy.admit("a1", owner="a", weight=4)
    await roomy.admit("b0", owner="b")
    (queue,) = await queues.read_queues(roomy.store)
    assert (queue.model, queue.queued) == (MODEL, 3)
    assert queue.oldest_secs == pytest.approx(5, abs=1)
    assert queue.drain_per_sec == pytest.approx(1 / 60, abs=0.001)
    assert [(owner.owner, owner.weight, owner.queued) for owner in queue.owners] == [("a", 4.0, 2), ("b", 1.0, 1)]
    assert queue.owners[0].estimated_wait_secs is not None
    assert queue.from_json(queue.to_json()) == queue


@pytest.mark.leaves_inflight
async def test_the_mean_duration_follows_what_ends(roomy: World) -> None:
    await roomy.admit("r0")
    await roomy.take()
    roomy.shift_clock(4)
    await roomy.finish(rid="r0", outcome=Outcome("failed", "internal", "broken"))  # its slot was taken as well
    queue = await read_shard_queue(roomy.store, 0, MODEL)
    assert queue.mean_secs == pytest.approx(4, abs=0.5)
    assert drain_per_sec(queue) > 0


@pytest.mark.leaves_inflight
async def test_what_was_queued_again_is_next_and_waits_since_then(roomy: World) -> None:
    await roomy.admit("r0")
    await roomy.take()
    roomy.shift_clock(5)
    await roomy.reap("w0")
    queue = await read_shard_queue(roomy.store, 0, MODEL)
    assert queue.now - queue.flows[0].oldest_at == pytest.approx(0, abs=1)


@pytest.mark.leaves_inflight
async def test_what_was_queued_again_does_not_hide_who_waits_for_longer(roomy: World) -> None:
    await roomy.admit("r0")
    await roomy.take()
    await roomy.admit("r1")
    roomy.shift_clock(5)
    await roomy.reap("w0")
    assert [await position(roomy, rid) for rid in ("r0", "r1")] == [1, 2]
    (queue,) = await queues.read_queues(roomy.store)
    assert queue.oldest_secs == pytest.approx(5, abs=1)


@pytest.mark.leaves_inflight
async def test_only_a_part_of_a_long_queue_is_read(roomy: World) -> None:
    for number in range(600):
        await roomy.admit(f"r{number}", owner=f"o{number % 150}", max_tokens=10)
    queue = await read_shard_queue(roomy.store, 0, MODEL)
    assert (len(queue.flows), queue.left_out) == (100, 50)
    assert sum(len(flow.costs) for flow in queue.flows) <= REQUESTS_LIMIT
    assert await position(roomy, "r0") == pytest.approx(1, abs=150)
    assert await position(roomy, "r599") == pytest.approx(600, rel=0.3)


@pytest.mark.leaves_inflight
async def test_a_long_list_of_owners_is_told_whole(roomy: World) -> None:
    for number in range(260):
        await roomy.admit(f"r{number}", owner=f"o{number % 130}", priority=number % 2)
    (queue,) = await queues.read_queues(roomy.store)
    assert (queue.queued, len(queue.owners)) == (260, 130)
    assert {owner.queued for owner in queue.owners} == {2}


@pytest.mark.leaves_inflight
async def test_a_queue_is_counted_whole_beyond_what_is_listed(roomy: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifecycle.store.shard_queues.MOST_FLOWS", 100)
    for number in range(130):
        await roomy.admit(f"r{number}", owner=f"o{number}")
    (queue,) = await queues.read_queues(roomy.store)
    assert (queue.queued, len(queue.owners)) == (130, 100)


@pytest.mark.leaves_inflight
async def test_requests_of_many_priorities_have_exact_positions(roomy: World) -> None:
    for number in range(300):
        await roomy.admit(f"r{number}", priority=number // 2)
    assert [await position(roomy, f"r{number}") for number in (0, 99, 200, 299)] == [1, 100, 201, 300]


@pytest.mark.leaves_inflight
async def test_the_last_of_many_owners_is_not_told_to_be_the_first(roomy: World) -> None:
    await roomy.admit("served", owner="a", max_tokens=1000)
    await roomy.admit("waits", owner="b", max_tokens=10)  # while nobody waited, nobody would be ahead
    assert (await roomy.take()).rid == "served"
    for number in range(149):
        await roomy.admit(f"r{number}", owner=f"o{number}", max_tokens=10)
    await roomy.admit("last", owner="a", max_tokens=10)
    assert await position(roomy, "last") == pytest.approx(151, abs=20)


@pytest.mark.leaves_inflight
async def test_owners_who_come_later_do_not_change_a_position(roomy: World) -> None:
    """Each of many owners waits with one request, as where every user is an owner."""
    for number in range(250):
        await roomy.admit(f"r{number}", owner=f"o{number * 7 % 250}", max_tokens=10)
    assert [await position(roomy, f"r{number}") for number in (0, 60, 99, 100, 180, 249)] == [1, 61, 100, 101, 181, 250]


@pytest.mark.leaves_inflight
async def test_a_record_that_has_just_started_is_told_so(roomy: World) -> None:
    await roomy.admit("r0")
    before = await roomy.record("r0")
    await roomy.take()
    assert (await queues.with_wait(roomy.store, before)).status == "running"


@pytest.mark.leaves_inflight
async def test_a_queue_of_another_type_is_taken_for_empty(roomy: World) -> None:
    await roomy.store.command("SET", f"{roomy.prefix}levels:{MODEL}", "x")
    assert (await read_shard_queue(roomy.store, 0, MODEL)).flows == ()
    await roomy.store.command("DEL", f"{roomy.prefix}levels:{MODEL}")
