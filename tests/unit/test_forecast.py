"""Refused calls are told when to come back, and deadlines that could not be met are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from lifecycle.queries.start_order import position_of
from lifecycle.store.new_request import AdmissionRequest, QueuePlace
from lifecycle.store.results import Outcome
from lifecycle.tracking.forecast import Forecast
from lifecycle.types import Labels, Limits, OnDisconnect
from tests.unit.world import MODEL, World


def request(owner: str = "", priority: int = 0) -> AdmissionRequest:
    labels = Labels(MODEL, "chat_completions", "stream")
    place = QueuePlace(priority=priority)
    return AdmissionRequest("new", labels, b"{}", OnDisconnect.CANCEL, 0.0, Limits(), owner=owner, place=place)


@pytest.fixture
async def roomy(world: World) -> World:
    """A world in which requests run for ten seconds."""
    await world.share(world.store.settings.model_copy(update={"queue_limit": 20_000}))
    await world.admit("before", max_tokens=10)
    await world.take()
    world.shift_clock(10)
    await world.finish(rid="before", outcome=Outcome("completed"))
    return world


@pytest.fixture
def forecast_of() -> Callable[[World, int], Forecast]:
    def made(world: World, slots: int) -> Forecast:
        known: Mapping[str, int] = {MODEL: slots}
        return Forecast(world.store, lambda model: known.get(model, 0))

    return made


@pytest.mark.leaves_inflight
async def test_who_gets_the_slot_of_another_does_not_wait(
    roomy: World, forecast_of: Callable[[World, int], Forecast]
) -> None:
    """A worker of LIFECYCLE_PREEMPT that runs something of priority 5 waits for something better."""
    await roomy.admit("waits", priority=7)
    assert (await roomy.take_all(slots=0, gives_up=5)).waits
    forecast = forecast_of(roomy, 1)
    assert await forecast.secs_until_start(request(priority=4)) == 0
    assert await forecast.secs_until_start(request(priority=5)) == pytest.approx(10, rel=0.1)


@pytest.mark.leaves_inflight
async def test_waits_follow_from_the_place_and_the_slots(
    roomy: World, forecast_of: Callable[[World, int], Forecast]
) -> None:
    assert await forecast_of(roomy, 2).secs_until_start(request()) == 0  # nothing waits
    for number in range(3):
        await roomy.admit(f"a{number}", owner="a", max_tokens=10)
    await roomy.admit("b0", owner="b", max_tokens=10)
    forecast = forecast_of(roomy, 2)
    assert await forecast.secs_until_start(request("a")) == pytest.approx(25, rel=0.1)  # behind four others
    assert await forecast.secs_until_start(request("a", -1)) == pytest.approx(5, rel=0.1)
    assert await forecast.secs_until_place(MODEL, "a") == pytest.approx(5, rel=0.1)
    assert await forecast.secs_until_place(MODEL, "b") == pytest.approx(10, rel=0.1)
    assert await forecast.secs_until_place(MODEL, "c") is None
    assert await forecast.secs_until_any_start(MODEL) == pytest.approx(5, rel=0.1)
    assert await forecast.secs_to_run(MODEL) == pytest.approx(10, rel=0.1)
    assert await forecast.secs_until_end(MODEL, "a", inflight=5) == pytest.approx(5, rel=0.1)  # two of them run
    assert await forecast.secs_until_end(MODEL, "a", inflight=3) == pytest.approx(15, rel=0.1)  # none runs yet


@pytest.mark.leaves_inflight
async def test_nothing_is_told_that_nothing_tells(world: World, forecast_of: Callable[[World, int], Forecast]) -> None:
    await world.admit("r0", owner="a")
    forecast = forecast_of(world, 2)
    assert await forecast.secs_until_start(request("a")) is None
    assert await forecast.secs_until_place(MODEL, "a") is None
    assert await forecast.secs_until_any_start(MODEL) is None
    assert await forecast.secs_until_end(MODEL, "a", inflight=1) is None
    assert await forecast.secs_to_run(MODEL) == 0


@pytest.mark.leaves_inflight
async def test_a_flood_of_questions_costs_one_read(
    roomy: World, forecast_of: Callable[[World, int], Forecast], monkeypatch: pytest.MonkeyPatch
) -> None:
    await roomy.admit("r0", owner="a")
    forecast, asked = forecast_of(roomy, 2), 0
    run = roomy.store.run

    async def counted(*args: object, **options: object) -> object:
        nonlocal asked
        asked += 1
        return await run(*args, **options)  # type: ignore[arg-type]

    computed = 0

    def computing(*args: object) -> int:
        nonlocal computed
        computed += 1
        return position_of(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(roomy.store, "run", counted)
    monkeypatch.setattr("lifecycle.tracking.forecast.position_of", computing)
    told = {await forecast.secs_until_place(MODEL, "a") for _ in range(20)}
    assert (len(told), asked, computed) == (1, 1, 1)


@pytest.mark.leaves_inflight
async def test_an_owner_behind_all_that_is_read_is_told_a_time_too(
    roomy: World, forecast_of: Callable[[World, int], Forecast]
) -> None:
    await roomy.admit("served", owner="late", max_tokens=1000)
    await roomy.admit("waits", owner="other", max_tokens=10)  # while nobody waited, nobody would be behind
    assert (await roomy.take()).rid == "served"
    await roomy.admit("late", owner="late", max_tokens=10)
    for number in range(149):
        await roomy.admit(f"r{number}", owner=f"o{number}", max_tokens=10)
    assert await forecast_of(roomy, 10).secs_until_place(MODEL, "late") == pytest.approx(125, rel=0.1)
