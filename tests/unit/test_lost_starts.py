"""A failover may lose a start, so that another attempt gets its number. Their nonces tell them apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.ids import TokenId
from lifecycle.store.results import START_LOST, Append, Outcome, Start, StartedAttempt
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import ReaderLimits, TokenReader
from tests.unit.world import World

COMPLETED = Outcome("completed", finish_reason="stop")
OTHER = StartedAttempt(1, "other---")


async def _started(world: World, worker: str = "w0", **admission: Any) -> Start:
    await world.admit(**admission)
    start = (await world.take(worker)).start
    assert isinstance(start, Start)
    return start


async def _append(world: World, nonce: str, number: int, before: int | None = None) -> str:
    token = orjson.dumps([f"1.{number} "])
    refused = await world.store.append(0, "w0", [Append("r", 1, number, token, number == 1, nonce, before)])
    return refused[0][1] if refused else "accepted"


async def _end_of(reader: TokenReader) -> End:
    while True:
        item = await reader.next()
        if isinstance(item, End):
            return item


@pytest.fixture
async def feed(world: World) -> RequestFeed:
    return RequestFeed("r", lambda _: None)


@pytest.fixture
async def resumed(world: World, feed: RequestFeed) -> AsyncIterator[TokenReader]:
    """Return a reader of a client that has read the first two tokens of attempt 1."""
    limits = ReaderLimits(1 << 20, 60.0, 1.0)
    reader = TokenReader(world.store, feed, RateLimiter(), limits, after=TokenId(1, 2))
    yield reader
    reader.close()


@pytest.mark.leaves_inflight
async def test_a_start_that_is_repeated_keeps_its_nonce(world: World) -> None:
    await world.admit()
    taken = await world.take_all()
    assert (await world.take_again()).runs == taken.runs
    first = taken.runs[0].start
    assert len(first.nonce) == 8
    assert (await world.record()).start_nonce == first.nonce


@pytest.mark.leaves_inflight
async def test_tokens_of_another_start_are_refused(world: World) -> None:
    start = await _started(world)
    assert await _append(world, start.nonce, 1) == "accepted"
    assert await _append(world, OTHER.nonce, 2) == "fenced"
    assert await _append(world, start.nonce, 2) == "accepted"
    assert await world.tokens() == "1.1 1.2 "


@pytest.mark.leaves_inflight
async def test_the_end_of_another_start_is_refused(world: World) -> None:
    await _started(world)
    ended = await world.store.finish("r", "w0", 1, COMPLETED, 0, nonce=OTHER.nonce)
    assert ended.what == "fenced"
    assert (await world.record()).status == "running"


@pytest.mark.leaves_inflight
async def test_tokens_behind_a_hole_are_refused_when_data_may_be_lost(world: World) -> None:
    start = await _started(world)
    assert await _append(world, start.nonce, 2, before=1) == "gone"
    assert await _append(world, start.nonce, 1, before=0) == "accepted"
    assert await _append(world, start.nonce, 1, before=0) == "accepted"  # its reply was lost
    assert await _append(world, start.nonce, 2, before=1) == "accepted"
    assert await world.tokens() == "1.1 1.2 "


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("lost", [1, 2])
async def test_an_answer_with_a_hole_is_not_completed(world: World, lost: int) -> None:
    start = await _started(world)
    assert start.length is not None
    for number in (1, 2, 3):
        await _append(world, start.nonce, number)
    await world.store.command("XDEL", f"{world.prefix}tokens:r", f"1-{lost}")
    last = Append("r", 1, 4, b'["1.4 "]', False)
    length = start.length + 3
    ended = await world.store.finish("r", "w0", 1, COMPLETED, 4, remainder=last, nonce=start.nonce, length=length)
    assert ended.what == "incomplete"
    assert (await world.record()).status == "running"


@pytest.mark.parametrize("executed", [False, True])
async def test_a_whole_answer_is_completed_whether_or_not_its_last_append_was_executed(
    world: World, executed: bool
) -> None:
    start = await _started(world)
    assert start.length is not None
    await _append(world, start.nonce, 1)
    if executed:
        await _append(world, start.nonce, 2)
    last = Append("r", 1, 3, b'["1.2 ","1.3 "]', False)
    length = start.length + 1
    ended = await world.store.finish("r", "w0", 1, COMPLETED, 3, remainder=last, nonce=start.nonce, length=length)
    assert ended.what == "done"
    assert await world.tokens() == "1.1 1.2 1.3 "


@pytest.mark.leaves_inflight
async def test_a_start_that_redis_has_is_not_reported_as_lost(world: World) -> None:
    start = await _started(world)
    mine = StartedAttempt(1, start.nonce)
    assert (await world.store.report_lost_start("r", mine, START_LOST)).what == "known"
    await world.store.requeue("r", "w0", 1)
    assert (await world.store.report_lost_start("r", mine, START_LOST)).what == "known"
    await world.take("w1")
    assert (await world.store.report_lost_start("r", mine, START_LOST)).what == "known"
    assert (await world.store.report_lost_start("unknown", mine, START_LOST)).what == "unknown"
    assert (await world.record()).lost_start == 0


async def test_a_lost_start_ends_the_attempt_that_has_its_number(world: World) -> None:
    await _started(world)
    ended = await world.store.report_lost_start("r", OTHER, START_LOST)
    assert ended.what == "done"
    record = await world.record()
    assert (record.status, record.error_type, record.lost_start) == ("failed", "state_lost", 1)
    assert (await world.store.report_lost_start("r", OTHER, START_LOST)).what == "already"


async def test_a_lost_start_ends_a_request_that_waits_again(world: World) -> None:
    await world.admit()
    assert (await world.store.report_lost_start("r", OTHER, START_LOST)).what == "done"
    assert (await world.record()).error_type == "state_lost"


async def test_a_lost_start_leaves_a_pending_kill_to_its_worker(world: World) -> None:
    start = await _started(world)
    await world.cancel()
    assert (await world.store.report_lost_start("r", OTHER, START_LOST)).what == "killing"
    await world.store.finish("r", "w0", 1, Outcome("cancelled"), 0, nonce=start.nonce)
    assert (await world.record()).status == "cancelled"


@pytest.mark.leaves_inflight
async def test_a_position_in_an_attempt_whose_start_was_lost_is_not_resumed_from(
    world: World, feed: RequestFeed, resumed: TokenReader
) -> None:
    start = await _started(world)
    for number in (1, 2, 3):
        await _append(world, start.nonce, number)
    feed.note_lost_start(1)
    end = await _end_of(resumed)
    assert (end.status, end.error_type, end.last) == ("failed", "state_lost", 2)


@pytest.mark.leaves_inflight
async def test_a_position_of_a_start_that_the_feed_has_seen_is_compared_with_the_stream(
    world: World, feed: RequestFeed, resumed: TokenReader
) -> None:
    feed.take_tokens("1-2", ["a", "b"], OTHER.nonce)
    start = await _started(world)
    for number in (1, 2, 3):
        await _append(world, start.nonce, number)
    assert (await _end_of(resumed)).error_type == "state_lost"
    assert (await world.record()).error_type == "state_lost"  # nobody else may join the two either


@pytest.mark.leaves_inflight
async def test_pushed_tokens_of_another_start_are_not_passed_on(
    world: World, feed: RequestFeed, resumed: TokenReader
) -> None:
    start = await _started(world)
    for number in (1, 2, 3):
        await _append(world, start.nonce, number)
    first = await resumed.next()
    assert isinstance(first, Tokens)
    assert first[:3] == (1, 3, ["1.3 "])
    feed.take_tokens("1-3", ["c"], start.nonce)
    await world.store.command("HSET", f"{world.prefix}request:r", "start_nonce", OTHER.nonce)
    await world.store.command("DEL", f"{world.prefix}tokens:r")
    key = f"{world.prefix}tokens:r"
    await world.store.command("XADD", key, "1-0", "s", "w1", "at", "", "n", OTHER.nonce)
    await world.store.command("XADD", key, "1-4", "t", b'["A","B","C","D"]', "at", "1")
    feed.take_tokens("1-4", ["D"], OTHER.nonce)
    assert (await _end_of(resumed)).error_type == "state_lost"


@pytest.mark.leaves_inflight
async def test_a_start_event_of_another_start_is_enough_to_end_a_reader(
    world: World, feed: RequestFeed, resumed: TokenReader
) -> None:
    feed.take_tokens("1-2", ["a", "b"], OTHER.nonce)
    start = await _started(world)
    feed.take_event({"type": "started", "worker": "w0", "attempt": 1, "base": 0, "nonce": start.nonce})
    assert feed.lost_start == 1
    assert (await _end_of(resumed)).error_type == "state_lost"


async def test_a_reader_that_finds_its_start_lost_ends_the_request_before_it_is_started_anew(
    world: World, feed: RequestFeed, resumed: TokenReader
) -> None:
    """A client that resumed at another frontend would get the tokens of the next start behind those of this one."""
    start = await _started(world)
    for number in (1, 2):
        await _append(world, start.nonce, number)
    feed.take_tokens("1-2", ["1.1 ", "1.2 "], start.nonce)
    await world.forget_start()
    end = await _end_of(resumed)
    assert (end.error_type, end.message) == ("state_lost", START_LOST.message)
    record = await world.record()
    assert (record.status, record.error_type, record.lost_start) == ("failed", "state_lost", 1)
    assert feed.lost_start == 1


@pytest.mark.leaves_inflight
async def test_a_reader_that_finds_tokens_lost_of_a_start_that_is_not_ends_alone(
    world: World, feed: RequestFeed, resumed: TokenReader
) -> None:
    start = await _started(world)
    await _append(world, start.nonce, 1)
    feed.take_tokens("1-2", ["1.1 ", "1.2 "], start.nonce)
    assert (await _end_of(resumed)).error_type == "state_lost"
    record = await world.record()
    assert (record.status, record.lost_start, feed.lost_start) == ("running", 0, 0)


@pytest.mark.leaves_inflight
async def test_a_reader_that_has_read_nothing_of_a_lost_start_leaves_the_request_to_the_next_one(
    world: World, feed: RequestFeed
) -> None:
    await _started(world)
    reader = TokenReader(world.store, feed, RateLimiter(), ReaderLimits(1 << 20, 0.1, 1.0))
    try:
        await reader.next()
        assert (reader.attempt, reader.number) == (1, 0)
        await world.forget_start()
        reader.mark_stale()
        assert (await _end_of(reader)).error_type == "state_lost"
        record = await world.record()
        assert (record.status, record.lost_start, feed.lost_start) == ("queued", 0, 0)
    finally:
        reader.close()


@pytest.mark.leaves_inflight
async def test_an_opening_without_a_nonce_is_read_as_before(world: World, feed: RequestFeed) -> None:
    await _started(world)
    key = f"{world.prefix}tokens:r"
    await world.store.command("DEL", key)
    await world.store.command("XADD", key, "1-0", "s", "w0", "at", "")
    await world.store.command("XADD", key, "1-3", "t", b'["a","b","c"]', "at", "1")
    limits = ReaderLimits(1 << 20, 60.0, 1.0)
    reader = TokenReader(world.store, feed, RateLimiter(), limits, after=TokenId(1, 2))
    item = await reader.next()
    assert isinstance(item, Tokens)
    assert item[:3] == (1, 3, ["c"])
    reader.close()


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("attempts", [(1,), (1, 2), (2, 1)])
async def test_a_request_that_gets_the_id_of_a_lost_one_knows_which_positions_are_not_its_own(
    world: World, attempts: tuple[int, ...]
) -> None:
    for attempt in attempts:
        lost = StartedAttempt(attempt, "lost----")
        assert (await world.store.report_lost_start("r", lost, START_LOST)).what == "unknown"
    await _started(world)
    record = await world.record()
    assert (record.status, record.attempt, record.lost_start) == ("running", 1, max(attempts))


@pytest.mark.leaves_inflight
async def test_a_position_in_a_lost_request_is_not_resumed_from_in_another_with_its_id(
    world: World, feed: RequestFeed, resumed: TokenReader
) -> None:
    await world.store.report_lost_start("r", OTHER, START_LOST)
    start = await _started(world)
    for number in (1, 2, 3):
        await _append(world, start.nonce, number)
    feed.note_lost_start((await world.record()).lost_start)
    assert (await _end_of(resumed)).error_type == "state_lost"
    assert (await world.record()).status == "running"
