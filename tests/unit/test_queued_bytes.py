"""The bytes of the bodies that wait: bounded, counted once whatever is repeated, and corrected by sweeps."""

from __future__ import annotations

import pytest

from lifecycle.store.results import Failure
from tests.unit.world import MODEL, World

BOUND = 2000


async def waiting(world: World) -> int:
    return (await world.store.queued_bytes()).get(MODEL, 0)


@pytest.fixture
async def bounded(world: World) -> World:
    await world.share(world.store.settings.model_copy(update={"queue_bytes": BOUND, "queue_limit": 100}))
    return world


@pytest.mark.leaves_inflight
async def test_bodies_wait_up_to_the_bound(bounded: World) -> None:
    assert (await bounded.admit("r0", body=b"x" * 1500)).outcome == "admitted"
    assert (await bounded.admit("r0", body=b"x" * 1500)).outcome == "admitted", "repeated"
    assert await waiting(bounded) == 1500
    assert (await bounded.admit("r1", body=b"x" * 501)).outcome == "full_bytes"
    assert (await bounded.admit("r2", body=b"x" * 500)).outcome == "admitted"
    assert (await bounded.admit("r0", nonce="other", body=b"x" * 1500)).outcome == "exists"
    assert await waiting(bounded) == BOUND


@pytest.mark.leaves_inflight
async def test_one_body_may_wait_whatever_its_size(bounded: World) -> None:
    assert (await bounded.admit("r0", body=b"x" * 3 * BOUND)).outcome == "admitted"
    assert (await bounded.admit("r1", body=b"")).outcome == "full_bytes"
    await bounded.take()
    assert (await bounded.admit("r1", body=b"")).outcome == "admitted"
    assert await waiting(bounded) == 0


async def test_what_starts_ends_or_moves_is_counted_once(bounded: World) -> None:
    for number in range(4):
        await bounded.admit(f"r{number}", body=b"x" * 100 * (number + 1))
    started = await bounded.take()
    for _ in range(2):
        await bounded.take_again()
        assert await waiting(bounded) == 900, "started"
    for _ in range(2):
        await bounded.store.requeue(started.rid, "w0", 1, failure=Failure("no"))
        assert await waiting(bounded) == 1000, "queued again"
    for _ in range(2):
        await bounded.cancel(rid="r3")
        assert await waiting(bounded) == 600, "cancelled"
    run = await bounded.take("w1")
    await bounded.reap("w1")
    assert await waiting(bounded) == 600, f"{run.rid} was taken by a worker that expired"
    for rid in ("r0", "r1", "r2"):
        await bounded.cancel(rid=rid)
    assert await waiting(bounded) == 0


@pytest.mark.parametrize("counted", [123456, 1])
async def test_a_wrong_count_is_corrected_by_a_sweep(bounded: World, counted: int) -> None:
    await bounded.admit("r0", body=b"x" * 100)
    await bounded.store.command("HSET", bounded.prefix + "queued_bytes", MODEL, counted, "gone", counted)
    await bounded.store.sweep(0)
    assert await bounded.store.queued_bytes() == {MODEL: 100}
    await bounded.store.command("HSET", bounded.prefix + "queued_bytes", MODEL, counted)
    await bounded.cancel(rid="r0")
    await bounded.store.sweep(0)
    assert await bounded.store.queued_bytes() == {}
