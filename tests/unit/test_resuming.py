"""A request whose engine can resume, between two workers: what is kept, what is refused, how it ends."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lifecycle.store.results import Append, Failure, Outcome, Start, UnservedModel
from lifecycle.types import CancelMode, ErrorDetail, Role
from tests.unit.world import World


async def _move(world: World, **admission: Any) -> None:
    """Two tokens of the first attempt, then its worker dies."""
    await world.run(resumable=True, **admission)
    await world.append(1)
    await world.append(2)
    assert await world.reap("w0") == (0, 1, 0)


async def _resume(world: World, worker: str = "w1") -> Start:
    started = (await world.take(worker, resumable=True)).start
    assert isinstance(started, Start)
    return started


async def _finish(world: World, last: int, attempt: int = 2) -> None:
    assert (await world.finish(last, worker="w1", attempt=attempt)).what == "done"


async def test_the_next_attempt_begins_behind_the_tokens_of_the_first(world: World) -> None:
    await _move(world)
    record = await world.record()
    assert (record.status, record.output_tokens, record.started_at) == ("queued", 2, None)
    assert record.first_token_at is not None
    assert record.last_token_at is not None
    assert await world.counts("f0") == {"queued": 1}
    started = await _resume(world)
    assert (started.attempt, started.base) == (2, 2)
    assert (await world.record()).output_tokens == 2
    assert await world.append(3, worker="w1", attempt=2) == "accepted"
    await _finish(world, 3)
    ended = await world.record()
    assert (ended.status, ended.output_tokens, ended.attempt) == ("completed", 3, 2)
    assert ended.first_token_at == record.first_token_at
    assert await world.tokens() == "1.1 1.2 2.3 "
    assert await world.pushed("f0") == ["1-1", "1-2", "2-3"]


async def test_nothing_of_the_first_attempt_follows(world: World) -> None:
    """Given back, not reaped: only the entry ids stand between its worker and the stream."""
    await world.run(resumable=True)
    await world.append(1)
    assert await world.store.requeue("r", "w0", 1) == "requeued"
    assert await world.append(1) == "fenced", "a repetition too: it is no longer its worker's"
    assert await world.append(2) == "fenced"
    await _resume(world)
    assert await world.append(2) == "fenced"
    assert await world.append(2, worker="w1", attempt=2) == "accepted"
    assert await world.append(3) == "fenced"
    assert (await world.finish(3)).what == "fenced"
    await _finish(world, 2)
    assert await world.tokens() == "1.1 2.2 "


async def test_an_engine_that_would_begin_anew_is_not_given_it(world: World) -> None:
    await _move(world)
    assert (await world.take_all("w1")).runs == []
    record = await world.record()
    assert (record.error_type, record.output_tokens, record.attempt) == ("worker_lost", 2, 1)
    assert record.error_message == "Disconnected: Stream ended before generation completed"


async def test_only_so_many_attempts_are_made(world: World) -> None:
    await _move(world)
    await _resume(world)
    assert await world.append(3, worker="w1", attempt=2) == "accepted"
    assert await world.reap("w1") == (1, 0, 0)
    record = await world.record()
    assert (record.status, record.error_type, record.output_tokens) == ("failed", "worker_lost", 3)


async def test_an_attempt_that_adds_nothing_keeps_what_was_there(world: World) -> None:
    await _move(world)
    await _resume(world)
    assert await world.reap("w1") == (1, 0, 0)
    record = await world.record()
    assert (record.output_tokens, record.error_type) == (2, "worker_lost")
    assert record.last_token_at is not None
    assert record.first_token_at is not None
    assert record.last_token_at == pytest.approx(record.first_token_at, abs=5.0)


@pytest.mark.parametrize("mode", ["kill", "stop"])
async def test_between_two_attempts_it_is_cancelled_at_once(world: World, mode: str) -> None:
    await _move(world)
    assert await world.cancel(mode) == "terminal"
    record = await world.record()
    assert (record.status, record.output_tokens) == ("cancelled", 2)
    assert await world.tokens() == "1.1 1.2 "
    assert await _last_told(world) == 2


async def test_a_stop_that_was_asked_of_the_dead_is_not_passed_on(world: World) -> None:
    await world.run(resumable=True)
    await world.append(1)
    await world.store.cancel("r", CancelMode.STOP, "enough")
    assert await world.reap("w0") == (1, 0, 0)
    assert (await world.record()).status == "cancelled"


async def test_who_ends_it_between_two_attempts_says_where_its_tokens_end(world: World) -> None:
    await _move(world, deadline_secs=10)
    world.shift_clock(11)
    assert (await world.take_all("w1", resumable=True)).runs == []
    assert (await world.record()).error_type == "deadline"
    assert await _last_told(world) == 2


async def test_a_queue_that_nobody_serves_any_more_says_so_too(world: World) -> None:
    await _move(world)
    assert await world.store.sweep(0, [UnservedModel("m")]) == (1, False, 0)
    assert (await world.record()).error_type == "unavailable"
    assert await _last_told(world) == 2


async def test_the_limit_of_the_first_token_that_was_met_does_not_count_again(world: World) -> None:
    await _move(world, first_token_timeout_secs=5)
    world.shift_clock(6)
    assert await world.store.sweep(0) == (0, False, 0)
    await _resume(world)
    assert await world.store.sweep(0) == (0, False, 0)
    await _finish(world, 2)


@pytest.mark.leaves_inflight
async def test_what_was_started_and_not_heard_of_is_given_back_with_its_tokens(world: World) -> None:
    await _move(world)
    await _resume(world)
    reconciliation = await world.store.reconcile_shard(0, "w1", Role.WORKER, [])
    assert reconciliation.not_held_locally == ["r"]
    assert await world.store.requeue("r", "w1", 2) == "requeued", "nothing failed"
    assert await world.tokens() == "1.1 1.2 "


@pytest.mark.leaves_inflight
@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (None, "requeued"),
        (Failure("The engine is away", uses_attempt=False), "requeued"),
        (Failure("The engine is away", ErrorDetail(503, retry_after_secs=7)), "ended"),
    ],
    ids=["moved in an orderly way", "no engine was reached", "the attempt failed"],
)
async def test_only_failed_attempts_are_limited(world: World, failure: Failure | None, outcome: str) -> None:
    await _move(world)  # the worker of the first attempt has expired, and max_attempts is 2
    await _resume(world)
    assert await world.store.requeue("r", "w1", 2, failure=failure) == outcome
    record = await world.record()
    assert record.attempt == 2
    if outcome == "ended":
        assert (record.status, record.error_type, record.error_message) == (
            "failed",
            "unavailable",
            "The engine is away",
        )
        assert record.error_detail == ErrorDetail(503, retry_after_secs=7)
        assert await _last_told(world) == 2


async def test_the_last_tokens_of_a_later_attempt_are_trimmed_as_those_of_the_first(world: World) -> None:
    await _move(world)
    await _resume(world)
    await world.append(3, worker="w1", attempt=2)
    last = Append("r", 2, 4, b'["2.3 ","2.4 "]', False)
    done = Outcome("completed", finish_reason="stop")
    assert (await world.store.finish("r", "w1", 2, done, 4, remainder=last)).what == "done"
    assert await world.tokens() == "1.1 1.2 2.3 2.4 "


async def _last_told(world: World) -> int:
    """Return the last token's number in the stream's end entry. A reader with another number is told of a loss."""
    (_, flat) = (await world.store.command("XREVRANGE", f"{world.prefix}tokens:r", "+", "-", "COUNT", 1))[0]
    return int(orjson.loads(dict(zip(flat[::2], flat[1::2], strict=True))[b"e"])["last"])
