"""A reader against a stream that is not what its client has read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.ids import START, TokenId
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tokens.history import PAGE_ENTRIES
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import SILENCE, ReaderLimits, TokenReader
from lifecycle.types import Storage
from tests.unit.world import World

Open = Callable[..., TokenReader]


@pytest.fixture
async def feed() -> RequestFeed:
    return RequestFeed("r", lambda feed: None)


@pytest.fixture
async def open_reader(world: World, feed: RequestFeed) -> AsyncIterator[Open]:
    opened: list[TokenReader] = []

    def open_one(after: TokenId = START, *, fresh: bool = False, keepalive_secs: float = 0.05) -> TokenReader:
        reader = TokenReader(
            world.store,
            feed,
            RateLimiter(),
            ReaderLimits(buffer_bytes=64 * 1024, keepalive_secs=keepalive_secs, retry_for_secs=0.0),
            after=after,
            fresh=fresh,
        )
        opened.append(reader)
        return reader

    yield open_one
    for reader in opened:
        reader.close()


async def _two_attempts(world: World) -> None:
    """Two tokens, a death, and two more."""
    await world.run(resumable=True)
    for number in (1, 2):
        await world.append(number)
    await world.store.requeue("r", "w0", 1)
    await world.take("w1", resumable=True)
    for number in (3, 4):
        await world.append(number, worker="w1", attempt=2)


async def _read(reader: TokenReader, tokens: int) -> tuple[list[str], End | None]:
    """Read so many tokens, or up to the end."""
    texts: list[str] = []
    async with asyncio.timeout(5):
        while len(texts) < tokens:
            item = await reader.next()
            if isinstance(item, End):
                return texts, item
            if isinstance(item, Tokens):
                texts += map(str, item.events)
    return texts, None


async def test_a_reader_whose_events_are_deleted_is_told_so(world: World, open_reader: Open) -> None:
    await world.run(storage=Storage.BACKGROUND)
    for number in (1, 2):
        await world.append(number)
    reader = open_reader()
    assert await _read(reader, 2) == (["1.1 ", "1.2 "], None)
    await world.append(3)
    await world.finish(3)
    await world.store.delete_content("r")
    reader.mark_stale()  # nothing was pushed to this reader
    texts, end = await _read(reader, 1)
    assert end is not None
    assert (texts, end.status, end.error_type, end.last) == ([], "failed", "not_found", 2)


async def test_the_events_of_a_transient_request_expire_before_its_record(world: World, open_reader: Open) -> None:
    await world.run(storage=Storage.TRANSIENT)
    await world.append(1)
    await world.finish(1)
    assert (await _read(open_reader(), 1)) == (["1.1 "], None)
    await world.store.command("DEL", f"{world.prefix}tokens:r")
    _, end = await _read(open_reader(), 1)
    assert end is not None
    assert (end.error_type, end.message) == ("not_found", "The events of this request are no longer stored")


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("after", ["1-0", "1-1", "1-2", "2-2", "2-3"])
async def test_a_stream_is_read_across_its_attempts(world: World, open_reader: Open, after: str) -> None:
    await _two_attempts(world)
    position = TokenId.parse(after)
    assert position is not None
    expected = ["1.1 ", "1.2 ", "2.3 ", "2.4 "][position.number :]
    assert await _read(open_reader(position), len(expected)) == (expected, None)


@pytest.mark.leaves_inflight
async def test_a_reader_that_follows_live_receives_the_next_attempt_too(
    world: World, feed: RequestFeed, open_reader: Open
) -> None:
    reader = open_reader(fresh=True)
    await world.run(resumable=True)
    await world.append(1)
    feed.take_tokens("1-1", ["1.1 "])
    assert await _read(reader, 1) == (["1.1 "], None)
    await world.store.requeue("r", "w0", 1)
    await world.take("w1", resumable=True)
    await world.append(2, worker="w1", attempt=2)
    feed.take_tokens("2-2", ["2.2 "])
    assert await _read(reader, 1) == (["2.2 "], None)
    await world.append(3, worker="w1", attempt=2)
    feed.take_tokens("2-3", ["2.3 "])
    assert await _read(reader, 1) == (["2.3 "], None)


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("after", ["1-3", "1-4", "1-5", "9-1", "9-4", "2-99"])
async def test_an_id_that_the_stream_never_had_ends_with_a_loss(world: World, open_reader: Open, after: str) -> None:
    """A client has read what Redis has lost since; or it made the id up, and must not keep this frontend busy."""
    await _two_attempts(world)
    position = TokenId.parse(after)
    assert position is not None
    texts, end = await _read(open_reader(position), 1)
    assert (texts, end and end.error_type) == ([], "state_lost")


@pytest.mark.leaves_inflight
async def test_the_next_attempt_is_not_spliced_to_tokens_that_are_lost(
    world: World, feed: RequestFeed, open_reader: Open
) -> None:
    """Four tokens were pushed, two have survived in Redis: the next attempt goes on behind the two."""
    reader = open_reader(fresh=True)
    feed.take_tokens("1-4", ["a", "b", "c", "d"])
    assert await _read(reader, 4) == (["a", "b", "c", "d"], None)
    await _two_attempts(world)
    await world.append(5, worker="w1", attempt=2)
    feed.take_tokens("2-3", ["2.3 "])
    feed.take_tokens("2-4", ["2.4 "])
    feed.take_tokens("2-5", ["2.5 "])
    texts, end = await _read(reader, 1)
    assert (texts, end and end.error_type) == ([], "state_lost")


class _Socket:
    """A socket that takes what it is given, or does not."""

    def __init__(self) -> None:
        self.open = True
        self.texts: list[str] = []

    def __call__(self, tokens: Tokens) -> bool:
        if self.open:
            self.texts += map(str, tokens.events)
        return self.open


async def _wait_for_next(reader: TokenReader) -> asyncio.Task[object]:
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    return waiting


async def test_a_waiting_reader_passes_tokens_on_and_is_woken_by_the_end(feed: RequestFeed, open_reader: Open) -> None:
    reader, socket = open_reader(fresh=True, keepalive_secs=60), _Socket()
    reader.on_events = socket
    waiting = await _wait_for_next(reader)
    feed.take_tokens("1-1", ["a"])
    feed.take_tokens("1-3", ["b", "c"])
    assert (socket.texts, waiting.done(), str(TokenId(reader.attempt, reader.number))) == (
        ["a", "b", "c"],
        False,
        "1-3",
    )
    end = End("completed", "", "", "stop", 3)
    feed.take_end(end)
    assert await waiting == end


async def test_no_token_overtakes_tokens_that_are_held(feed: RequestFeed, open_reader: Open) -> None:
    """While the owner is busy, or the socket full, tokens are held, and whatever follows queues behind them."""
    reader, socket = open_reader(fresh=True, keepalive_secs=60), _Socket()
    reader.on_events = socket
    feed.take_tokens("1-1", ["a"])  # nobody waits
    assert await reader.next() == Tokens(1, 1, ["a"])
    waiting = await _wait_for_next(reader)
    socket.open = False
    feed.take_tokens("1-2", ["b"])
    socket.open = True
    feed.take_tokens("1-3", ["c"])
    assert await waiting == Tokens(1, 2, ["b"])
    assert await reader.next() == Tokens(1, 3, ["c"])
    assert socket.texts == []


@pytest.mark.leaves_inflight
async def test_tokens_behind_a_gap_are_not_passed_on(world: World, feed: RequestFeed, open_reader: Open) -> None:
    await world.run()
    for number in (1, 2, 3):
        await world.append(number)
    reader, socket = open_reader(fresh=True, keepalive_secs=60), _Socket()
    reader.on_events = socket
    waiting = await _wait_for_next(reader)
    feed.take_tokens("1-3", ["1.3 "])  # the frame before got lost
    assert socket.texts == []
    passed = await waiting
    assert isinstance(passed, Tokens)
    assert passed[:3] == (1, 1, ["1.1 "])
    assert await _read(reader, 2) == (["1.2 ", "1.3 "], None)


async def test_another_attempt_is_not_passed_on_before_its_base_is_known(feed: RequestFeed, open_reader: Open) -> None:
    """The stream says where it begins."""
    reader, socket = open_reader(fresh=True, keepalive_secs=60), _Socket()
    reader.on_events = socket
    waiting = await _wait_for_next(reader)
    feed.take_tokens("1-1", ["a"])
    feed.take_tokens("2-2", ["b"])
    assert socket.texts == ["a"]
    waiting.cancel()


@pytest.mark.leaves_inflight
async def test_a_stream_of_several_pages_is_read_from_its_start(world: World, open_reader: Open) -> None:
    """Entries that the first page skips (the start of an attempt, tokens delivered before) are no gap."""
    await world.run()
    count = 2 * PAGE_ENTRIES + 10
    for number in range(1, count + 1):
        await world.append(number)
    expected = [f"1.{number} " for number in range(1, count + 1)]
    assert await _read(open_reader(), count) == (expected, None)


async def test_silence_reads_the_record_within_the_rate_limit_and_staleness_always(
    world: World, feed: RequestFeed
) -> None:
    """Redis does not know the request, so that reading its record ends the stream."""
    none_left = RateLimiter(per_sec=1e-9)
    while none_left.take():
        pass
    limits = ReaderLimits(buffer_bytes=64 * 1024, keepalive_secs=0.01, retry_for_secs=0.0)
    reader = TokenReader(world.store, feed, none_left, limits, fresh=True)
    assert [await reader.next() for _ in range(3)] == [SILENCE] * 3
    reader.mark_stale()
    end = await reader.next()
    assert isinstance(end, End)
    assert end.error_type == "state_lost"
    reader.close()
