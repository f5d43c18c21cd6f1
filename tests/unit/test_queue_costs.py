"""Owners are charged what their requests have cost: debts, what is given back, and the mean of answers."""

from __future__ import annotations

from collections import Counter

import pytest

from lifecycle.store.results import Outcome
from lifecycle.types import Labels
from tests.unit.world import MODEL, World

EMBEDDINGS = Labels(MODEL, "embeddings", "unary")


@pytest.fixture
async def roomy(world: World) -> World:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 20_000}))
    return world


async def end(world: World, rid: str, tokens: int) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": tokens}
    assert (await world.finish(rid=rid, outcome=Outcome("completed", usage=usage))).what == "done"


async def contended(world: World) -> Counter[str]:
    """Let two owners have ten requests waiting each, and return whose ten start."""
    for number in range(10):
        await world.admit(f"a-{number}", owner="a", max_tokens=100)
        await world.admit(f"b-{number}", owner="b", max_tokens=100)
    return Counter([(await world.take()).rid[0] for _ in range(10)])


@pytest.mark.leaves_inflight
async def test_what_is_used_while_nobody_waits_makes_no_debt(roomy: World) -> None:
    await roomy.run("long", owner="a", max_tokens=10)
    await end(roomy, "long", 100_000)
    assert await contended(roomy) == {"a": 5, "b": 5}


@pytest.mark.leaves_inflight
async def test_a_debt_ends_when_a_slot_is_free_and_nothing_waits(roomy: World) -> None:
    await roomy.admit("long", owner="a", max_tokens=10)
    await roomy.admit("short", owner="b", max_tokens=10)
    assert (await roomy.take()).rid == "long"
    await end(roomy, "long", 100_000)  # while another owner waits
    assert len((await roomy.take_all(slots=2)).runs) == 1
    assert await contended(roomy) == {"a": 5, "b": 5}


@pytest.mark.leaves_inflight
async def test_a_debt_stays_when_no_slot_is_free(roomy: World) -> None:
    """The queue is empty for a moment only because its last request has got the last slot."""
    await roomy.admit("long", owner="a", max_tokens=10)
    await roomy.admit("short", owner="b", max_tokens=10)
    assert (await roomy.take()).rid == "long"
    await end(roomy, "long", 100_000)
    assert len((await roomy.take_all(slots=1)).runs) == 1
    assert await contended(roomy) == {"b": 10}


@pytest.mark.leaves_inflight
@pytest.mark.parametrize(
    ("labels", "max_tokens", "tokens"), [(EMBEDDINGS, 0, 1), (EMBEDDINGS, 0, 0), (EMBEDDINGS, None, 0)]
)
async def test_what_has_no_answer_is_left_out_of_the_mean(
    roomy: World, labels: Labels, max_tokens: int | None, tokens: int
) -> None:
    """Calls without `max_tokens` would be charged too little by it, and their waits be told too short."""
    await roomy.run("answer")
    await end(roomy, "answer", 50)
    for number in range(5):
        rid = f"none{number}"
        await roomy.admit(rid, labels=labels, max_tokens=max_tokens)
        await roomy.take(endpoints=" chat_completions embeddings ")
        await end(roomy, rid, tokens)
    await roomy.run("next")
    assert await roomy.store.command("HGET", roomy.prefix + "request:next", "cost") == b"50"


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("single", ["early", "zealous"])  # before and behind the other in the alphabet
async def test_what_is_given_back_to_a_flood_passes_nobody_who_is_next(roomy: World, single: str) -> None:
    """Otherwise another owner's request waits for as many slots as the flood's requests have had."""
    for number in range(30):
        await roomy.admit(f"flood{number}", owner="flood", max_tokens=4000)
    runs = (await roomy.take_all(slots=8)).runs
    await roomy.admit("single", owner=single, max_tokens=100)
    for run in runs:
        await end(roomy, run.rid, 10)
    assert (await roomy.take()).rid == "single"
    assert (await roomy.take()).rid == "flood8"  # what was given back is used now
    time = await roomy.store.command("ZSCORE", f"{roomy.prefix}virtual_times:{MODEL}", "flood")
    assert float(time) == 8 * 10 + 4000
