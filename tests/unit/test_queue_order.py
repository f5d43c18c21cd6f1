"""The order in which requests start: by priority, then fairly between owners by weight, then first come."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random
from typing import Any

import pytest

from lifecycle.store.results import Failure, Offer, Outcome
from lifecycle.types import Labels
from tests.unit.world import MODEL, World


@pytest.fixture
async def roomy(world: World) -> World:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 20_000}))
    return world


async def started(world: World, count: int, worker: str = "w0") -> list[str]:
    return [(await world.take(worker)).rid for _ in range(count)]


@pytest.mark.leaves_inflight
async def test_one_owner_is_served_first_come_first_served(world: World) -> None:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 100}))
    for number in range(5):
        await world.admit(f"r{number}", max_tokens=1000 - number)
    world.shift_clock(-100)  # Redis's clock is put back
    await world.admit("r5")
    assert await started(world, 6) == [f"r{number}" for number in range(6)]


@pytest.mark.leaves_inflight
async def test_a_lower_priority_number_is_served_first(roomy: World) -> None:
    for rid, priority in (("zero", 0), ("ten", 10), ("minus", -3), ("two", 2)):
        await roomy.admit(rid, priority=priority, owner=rid)
    assert await started(roomy, 4) == ["minus", "zero", "two", "ten"]


@pytest.mark.leaves_inflight
async def test_tokens_are_shared_in_proportion_to_the_weights(roomy: World) -> None:
    for number in range(100):
        await roomy.admit(f"a{number}", owner="a", weight=4, max_tokens=100)
        await roomy.admit(f"b{number}", owner="b", weight=1, max_tokens=100)
    shares = Counter(rid[0] for rid in await started(roomy, 50))
    assert shares == {"a": 40, "b": 10}


@pytest.mark.leaves_inflight
async def test_owners_share_tokens_and_not_requests(roomy: World) -> None:
    for number in range(60):
        await roomy.admit(f"a{number}", owner="a", max_tokens=500)
        await roomy.admit(f"b{number}", owner="b", max_tokens=100)
    shares = Counter(rid[0] for rid in await started(roomy, 60))
    assert shares["b"] == pytest.approx(50, abs=1)


@pytest.mark.leaves_inflight
async def test_the_reported_usage_corrects_the_estimate(roomy: World) -> None:
    """Owner a always says 10 tokens and uses 200: over time both get the same number of tokens."""
    used: Counter[str] = Counter()
    for number in range(120):
        await roomy.admit(f"a{number}", owner="a", max_tokens=10)
        await roomy.admit(f"b{number}", owner="b", max_tokens=100)
    for _ in range(120):
        run = await roomy.take()
        tokens = 200 if run.rid[0] == "a" else 100
        used[run.rid[0]] += tokens
        usage = {"prompt_tokens": 0, "completion_tokens": tokens}
        ended = await roomy.finish(rid=run.rid, outcome=Outcome("completed", usage=usage))
        assert ended.what == "done"
    assert used["a"] == pytest.approx(used["b"], abs=200)


@pytest.mark.leaves_inflight
async def test_an_overestimate_is_given_back(roomy: World) -> None:
    used: Counter[str] = Counter()
    for number in range(120):
        await roomy.admit(f"a{number}", owner="a", max_tokens=10_000)
        await roomy.admit(f"b{number}", owner="b", max_tokens=100)
    for _ in range(120):
        run = await roomy.take()
        used[run.rid[0]] += 1
        usage = {"prompt_tokens": 0, "completion_tokens": 100}
        await roomy.finish(rid=run.rid, outcome=Outcome("completed", usage=usage))
    assert used["a"] == pytest.approx(60, abs=2)


async def test_a_correction_after_a_day_without_starts_lasts_as_long_as_others(roomy: World) -> None:
    await roomy.admit("r", owner="a", max_tokens=10)
    run = await roomy.take()
    await roomy.store.command("DEL", f"{roomy.prefix}virtual_times:{MODEL}")  # expired meanwhile
    await roomy.finish(rid=run.rid, outcome=Outcome("completed", usage={"completion_tokens": 100}))
    assert await roomy.store.command("PTTL", f"{roomy.prefix}virtual_times:{MODEL}") > 0


@pytest.mark.leaves_inflight
async def test_an_overestimate_is_given_back_although_an_underestimate_was_charged_before(roomy: World) -> None:
    for number in range(3):
        await roomy.admit(f"a{number}", owner="a", max_tokens=100)
    runs = [await roomy.take() for _ in range(2)]  # the next one at 200
    await roomy.admit("b0", owner="b", max_tokens=100, priority=1)
    for run, tokens in zip(runs, (110, 20), strict=True):  # 10 more, then 80 fewer
        usage = {"prompt_tokens": 0, "completion_tokens": tokens}
        await roomy.finish(rid=run.rid, outcome=Outcome("completed", usage=usage))
    level = await roomy.store.command("ZSCORE", f"{roomy.prefix}level:0|{MODEL}", "a")
    known = await roomy.store.command("ZSCORE", f"{roomy.prefix}virtual_times:{MODEL}", "a")
    assert (float(level), float(known)) == (130.0, 130.0)


@pytest.mark.leaves_inflight
async def test_a_newcomer_gets_no_advantage_from_one_whom_no_free_worker_takes(roomy: World) -> None:
    await roomy.admit("u", owner="u", max_tokens=100, needs=("tools",))
    for number in range(60):
        await roomy.admit(f"a{number}", owner="a", max_tokens=100)
    for _ in range(40):
        await roomy.take(accepts=())
    for number in range(20):
        await roomy.admit(f"b{number}", owner="b", max_tokens=100)
    shares = Counter([(await roomy.take(accepts=())).rid[0] for _ in range(20)])
    assert shares["b"] == pytest.approx(10, abs=1)


@pytest.mark.leaves_inflight
async def test_nothing_is_kept_of_a_level_in_which_nothing_waits(roomy: World) -> None:
    for number in range(5):
        for rid in (f"a{number}", f"b{number}"):
            await roomy.admit(rid, priority=number)
    await started(roomy, 8)
    await roomy.cancel(rid="a4")
    assert b"served:4" not in await roomy.store.command("HKEYS", f"{roomy.prefix}queue:{MODEL}")
    await started(roomy, 1)
    await roomy.cancel(rid="b4")
    names = await roomy.store.command("HKEYS", f"{roomy.prefix}queue:{MODEL}")
    assert [name for name in names if name.startswith(b"served:")] == []


@pytest.mark.leaves_inflight
async def test_who_waits_for_a_day_keeps_its_place(roomy: World) -> None:
    """The model's virtual time has expired by then. A newcomer does not begin before those who wait."""
    for number in range(3):
        await roomy.admit(f"a{number}", owner="a", max_tokens=100)
    await started(roomy, 2)
    await roomy.store.command("DEL", f"{roomy.prefix}queue:{MODEL}", f"{roomy.prefix}virtual_times:{MODEL}")
    for number in range(3):
        await roomy.admit(f"b{number}", owner="b", max_tokens=100)
    assert "a2" in await started(roomy, 2)


@pytest.mark.leaves_inflight
async def test_a_flood_of_one_owner_delays_another_by_one_start_at_most(roomy: World) -> None:
    for number in range(1000):
        await roomy.admit(f"flood{number}", owner="flood", max_tokens=100)
    await started(roomy, 20)
    await roomy.admit("single", owner="single", max_tokens=100)
    assert "single" in await started(roomy, 2)


@pytest.mark.leaves_inflight
async def test_idleness_earns_no_advantage(roomy: World) -> None:
    for number in range(40):
        await roomy.admit(f"a{number}", owner="a", max_tokens=100)
    await started(roomy, 20)
    for number in range(40):
        await roomy.admit(f"b{number}", owner="b", max_tokens=100)
    assert Counter(rid[0] for rid in await started(roomy, 20)) == {"a": 10, "b": 10}


@pytest.mark.leaves_inflight
async def test_owners_with_equal_claims_are_served_first_come_first_served(roomy: World) -> None:
    """Their names decide nothing: neither those of newcomers, nor of owners who have had the same."""
    for owner in ("d", "a", "c", "b"):
        for number in range(2):
            await roomy.admit(f"{owner}{number}", owner=owner, max_tokens=10)
    assert await started(roomy, 4) == ["d0", "a0", "c0", "b0"]
    await roomy.admit("00", owner="0", max_tokens=10)
    assert await started(roomy, 5) == ["00", "d1", "a1", "c1", "b1"]
    for owner in ("b", "d", "a", "c"):
        await roomy.admit(f"{owner}2", owner=owner, max_tokens=10)
    assert await started(roomy, 4) == ["b2", "d2", "a2", "c2"]


@pytest.mark.leaves_inflight
@pytest.mark.parametrize(("flood", "single"), [("a", "b"), ("b", "a")])
async def test_a_newcomer_comes_before_owners_who_have_just_been_served(roomy: World, flood: str, single: str) -> None:
    await roomy.run("running", owner=flood)  # with the last slot, while nothing else waits
    for number in range(10):
        await roomy.admit(f"flood{number}", owner=flood)
    await roomy.admit("single", owner=single)
    assert await started(roomy, 2) == ["single", "flood0"]


@pytest.mark.leaves_inflight
async def test_newcomers_with_any_name_pass_nobody_who_waits(roomy: World) -> None:
    await roomy.admit("z", owner="z")
    order = []
    for number in range(20):
        await roomy.admit(f"n{number}", owner=f"{20 - number:02}")
        order += await started(roomy, 1)
    assert order == ["z", *(f"n{number}" for number in range(19))]


@pytest.mark.leaves_inflight
async def test_who_gets_tokens_back_while_he_waits_is_not_passed_by_a_newcomer(roomy: World) -> None:
    """Let the second begin to wait while the first runs and nobody else waits: their claims are equal until then."""
    await roomy.admit("first", owner="z", max_tokens=1000)
    await roomy.take_all(slots=2)
    await roomy.admit("second", owner="z", max_tokens=10)
    await roomy.finish(rid="first", outcome=Outcome("completed", usage={"prompt_tokens": 0, "completion_tokens": 10}))
    await roomy.admit("newcomer", owner="a", max_tokens=10)
    assert await started(roomy, 2) == ["second", "newcomer"]


@pytest.mark.leaves_inflight
async def test_the_order_of_equal_claims_does_not_depend_on_how_much_was_served_before(roomy: World) -> None:
    await roomy.store.command("HSET", f"{roomy.prefix}queue:{MODEL}", "virtual_time", "100000000000")
    for owner in ("d", "a", "c", "b"):
        await roomy.admit(owner, owner=owner, max_tokens=10)
    assert await started(roomy, 4) == ["d", "a", "c", "b"]


@pytest.mark.leaves_inflight
@pytest.mark.parametrize(("first", "other"), [("a", "b"), ("b", "a")])
async def test_what_is_queued_again_comes_before_those_with_an_equal_claim(
    roomy: World, first: str, other: str
) -> None:
    await roomy.admit("first", owner=first, max_tokens=10)
    await roomy.take_all(slots=2)
    await roomy.admit("other", owner=other, max_tokens=10)
    await roomy.store.requeue("first", "w0", 1, failure=Failure("no"))
    assert await started(roomy, 2, "w1") == ["first", "other"]


@pytest.mark.leaves_inflight
async def test_small_requests_cost_an_owner_of_a_large_weight_no_more_than_their_tokens(roomy: World) -> None:
    """One owner always has many requests, and the other one at a time: it begins to wait again after each."""
    used: Counter[str] = Counter()
    for number in range(10):
        await roomy.admit(f"a{number}", owner="a", weight=1000, max_tokens=100)
    await roomy.admit("b0", owner="b", weight=1000, max_tokens=2)
    for number in range(1, 205):
        run = await roomy.take()
        tokens = 2 if run.rid[0] == "b" else 100
        used[run.rid[0]] += tokens
        usage = {"prompt_tokens": 0, "completion_tokens": tokens}
        await roomy.finish(rid=run.rid, outcome=Outcome("completed", usage=usage))
        if run.rid[0] == "b":
            await roomy.admit(f"b{number}", owner="b", weight=1000, max_tokens=2)
    assert used["a"] == pytest.approx(used["b"], abs=100)


@pytest.mark.leaves_inflight
async def test_what_is_queued_again_comes_first_in_its_flow(roomy: World) -> None:
    for number in range(5):
        await roomy.admit(f"r{number}")
    assert await started(roomy, 3) == ["r0", "r1", "r2"]
    for rid in ("r0", "r2", "r1"):  # in whatever order they come back
        await roomy.store.requeue(rid, "w0", 1, failure=Failure("no"))
    await roomy.admit("r5")
    assert await started(roomy, 6, "w1") == ["r0", "r1", "r2", "r3", "r4", "r5"]


@pytest.mark.leaves_inflight
async def test_a_moved_request_costs_its_owner_once(roomy: World) -> None:
    for number in range(10):
        await roomy.admit(f"a{number}", owner="a", max_tokens=100)
        await roomy.admit(f"b{number}", owner="b", max_tokens=100)
    first = await roomy.take()
    for attempt in range(1, 6):
        await roomy.store.requeue(first.rid, "w0", attempt)
        assert (await roomy.take()).rid == first.rid
    others = Counter(rid[0] for rid in await started(roomy, 9))
    assert others + Counter(first.rid[0]) == {"a": 5, "b": 5}


@pytest.mark.leaves_inflight
async def test_an_owner_without_max_tokens_is_charged_the_models_mean(roomy: World) -> None:
    await roomy.run("first")
    usage = {"prompt_tokens": 0, "completion_tokens": 50}
    await roomy.finish(rid="first", outcome=Outcome("completed", usage=usage))
    await roomy.run("second")
    assert await roomy.store.command("HGET", roomy.prefix + "request:second", "cost") == b"50"


@pytest.mark.leaves_inflight
async def test_the_limit_is_of_one_owner_and_model(world: World) -> None:
    for rid in ("a0", "a1", "b0"):
        assert (await world.admit(rid, owner=rid[0])).outcome == "admitted"
    full = await world.admit("a2", owner="a", priority=-1)
    assert (full.outcome, full.depth) == ("full", 2)
    assert (await world.admit("b1", owner="b")).outcome == "admitted"
    assert [await world.store.queue_depth(MODEL, owner) for owner in "abc"] == [2, 2, 0]


@pytest.mark.leaves_inflight
async def test_idle_owners_are_forgotten(roomy: World) -> None:
    """The virtual times that are kept are bounded by those who wait or are ahead of the model's."""
    for number in range(600):
        await roomy.admit(f"r{number}", owner=f"owner{number}", max_tokens=1)
        await roomy.take()
    assert await roomy.store.command("ZCARD", f"{roomy.prefix}virtual_times:{MODEL}") < 200


@pytest.mark.leaves_inflight
async def test_owners_and_models_with_any_name_have_their_own_flow(roomy: World) -> None:
    for rid, owner in (("r0", "a|1"), ("r1", "a"), ("r2", ""), ("r3", "1|a")):
        await roomy.admit(rid, owner=owner, priority=1)
    assert sorted(await started(roomy, 4)) == ["r0", "r1", "r2", "r3"]


@pytest.mark.leaves_inflight
@pytest.mark.parametrize(("before", "found"), [(15, ["plain"]), (16, [])])
async def test_a_take_looks_at_sixteen_requests_of_an_owner(roomy: World, before: int, found: list[str]) -> None:
    """Behind sixteen that this worker's engine does not take, a request waits for a worker that takes those."""
    for number in range(before):
        await roomy.admit(f"r{number}", needs=("tools",))
    await roomy.admit("plain")
    taken = await roomy.take_all(accepts=())
    assert [run.rid for run in taken.runs] == found
    assert len(taken.unsupported) == before


@pytest.mark.leaves_inflight
async def test_flows_that_redis_has_lost_hide_none_behind_them(roomy: World) -> None:
    for number in range(10):
        await roomy.admit(f"r{number}", owner=f"o{number}")
    for number in range(9):
        await roomy.store.command("DEL", f"{roomy.prefix}flow:0|2|o{number}|{MODEL}")
    assert await started(roomy, 1) == ["r9"]
    await roomy.store.sweep(0)  # corrects the counts


async def test_who_comes_behind_many_that_owe_is_found_by_short_takes(roomy: World) -> None:
    """Everybody before it is ahead of its place, and each take moves only some of them behind it."""
    level, owing = f"{roomy.prefix}level:0|{MODEL}", [f"o{number}" for number in range(2000)]
    await roomy.admit(owner="z")
    await roomy.store.command("ZADD", level, *(word for owner in owing for word in (0, owner)))
    await roomy.store.command(
        "ZADD", f"{roomy.prefix}virtual_times:{MODEL}", *(word for owner in owing for word in (9, owner))
    )
    taken, moved = await roomy.take_all(), [0]
    while not taken.runs:
        moved.append(await roomy.store.command("ZCOUNT", level, 9, 9))
        assert 0 < moved[-1] - moved[-2] < 700
        assert not taken.waits
        taken = await roomy.take_all()
    assert len(moved) > 1
    await roomy.store.command("DEL", level, f"{roomy.prefix}levels:{MODEL}")
    await roomy.finish()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.leaves_inflight
async def test_one_take_starts_what_as_many_takes_of_one_request_would(roomy: World, seed: int) -> None:
    chance = Random(seed)
    admissions: list[dict[str, Any]] = [
        {
            "owner": f"o{chance.randrange(14)}",
            "weight": chance.choice((1, 2, 5)),
            "max_tokens": chance.choice((1, 100, 100, 900)),
            "priority": chance.choice((-1, 0, 0, 0, 3)),
            "needs": chance.choice(((), (), (), ("tools",))),
        }
        for _ in range(90)
    ]
    orders, times = [], []
    for worker, model, slots in (("w0", "one", 1), ("w1", "many", 16)):
        for number, admission in enumerate(admissions):
            await roomy.admit(f"{model}-{number}", labels=Labels(model, "completions", "stream"), **admission)
        order: list[str] = []
        for number in itertools.count(1):
            taken = await roomy.store.take(roomy.shard, worker, number, "nonce-00", [model], slots, Offer())
            assert taken is not None
            order += [run.rid.removeprefix(f"{model}-") for run in taken.runs]
            if taken.waits:
                break
        orders.append(order)
        times.append(
            [
                await roomy.store.command("ZRANGE", f"{roomy.prefix}virtual_times:{model}", 0, -1, "WITHSCORES"),
                await roomy.store.command("HGETALL", f"{roomy.prefix}queued:{model}"),
            ]
        )
    assert len(orders[0]) > 16
    assert orders[1] == orders[0]
    assert times[1] == times[0]
