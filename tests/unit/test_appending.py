"""Tokens in Redis: what an append is refused for, and when a stream is whole."""

from __future__ import annotations

import pytest

from lifecycle.errors import Fenced
from lifecycle.store.results import Append, Outcome
from tests.unit.world import World


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
    assert await world.store.requeue("r", "w0", 1) == "requeued"
    assert await world.append(1) == "fenced", "requeued, and not yet started by another worker"
    await world.take("w1")
    assert await world.append(1) == "fenced"
    assert await world.append(1, worker="w1", attempt=2) == "accepted"
    assert (await world.finish(0)).what == "fenced"
    assert await world.append(2) == "fenced"
    await world.finish(1, worker="w1", attempt=2)
    assert await world.tokens() == "2.1 "


async def test_an_expired_worker_can_append_nothing(world: World) -> None:
    await world.run()
    await world.append(1)
    assert await world.reap("w0") == (1, 0, 0)
    with pytest.raises(Fenced):
        await world.append(2)
    record = await world.record()
    assert (record.error_type, record.output_tokens) == ("worker_lost", 1)


async def test_a_worker_whose_lease_has_ended_still_ends_what_is_its_own(world: World) -> None:
    """Its engine has ended. The end counts once, whoever cleans up after it; its last tokens come with it."""
    await world.run()
    await world.append(1)
    await world.expire("w0")
    with pytest.raises(Fenced):
        await world.append(2)
    last = Append("r", 1, 2, b'["1.2 "]', False)
    outcome = Outcome("completed", finish_reason="stop")
    told = [(await world.store.finish("r", "w0", 1, outcome, 2, remainder=last)).what for _ in range(2)]
    assert told == ["done", "already"]
    assert await world.reap("w0") == (0, 0, 0)
    assert (await world.tokens(), (await world.record()).status) == ("1.1 1.2 ", "completed")
    assert sum((await world.totals()).values()) == 1


async def test_a_worker_whose_lease_has_ended_still_returns_what_is_its_own(world: World) -> None:
    await world.run()
    await world.expire("w0")
    assert await world.store.requeue("r", "w0", 1) == "requeued"
    assert await world.reap("w0") == (0, 0, 0)
    await world.take("w1")
    assert await world.store.requeue("r", "w0", 1) == "not"
    assert (await world.finish(0)).what == "fenced"
    assert (await world.finish(0, worker="w1", attempt=2)).what == "done"


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
