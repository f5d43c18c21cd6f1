"""Readers, pages of a stream, sinks and flushes are bounded in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from lifecycle.aio import tasks
from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.encoding import encode_events
from lifecycle.store.results import Append, Outcome, Refusal
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tokens.history import PAGE_ENTRIES, read_history
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import ReaderLimits, TokenReader
from lifecycle.tokens.sizes import event_bytes, memory_bytes
from lifecycle.tokens.writer import (
    ENTRY_TOKENS,
    FLUSH_BYTES,
    FLUSH_REQUESTS,
    SINK_TOKENS,
    TOKEN_BYTES,
    TokenSink,
    TokenWriter,
)
from lifecycle.types import Event, RequestRecord
from tests.pushes import Pushes
from tests.unit.world import World, unchecked
from tests.waiting import wait_until

COMPLETED = Outcome("completed", finish_reason="stop")
BUFFER_BYTES = 64 * 1024
SINK_BYTES, ENTRY_BYTES = SINK_TOKENS * TOKEN_BYTES, ENTRY_TOKENS * TOKEN_BYTES


def token(number: int, size: int) -> str:
    return f"{number} ".ljust(size, "x")


async def append(world: World, number: int, events: list[Any], rid: str = "r") -> None:
    """Append one entry; `number` is that of its last event."""
    entry = Append(rid, 1, number, orjson.dumps(events), number == len(events))
    assert await world.store.append(0, "w0", [entry]) == []


async def entries(world: World, rid: str = "r") -> list[list[Any]]:
    """Return the events of each entry of the stream in Redis."""
    found = await world.store.command("XRANGE", f"{world.prefix}tokens:{rid}", "-", "+")
    return [orjson.loads(flat[1]) for _, flat in found if flat[0] == b"t"]


@pytest.mark.parametrize("event", ["", "plain", "é\u2028", {"a": [1, None, "é"]}, {"huge": 2**70}])
def test_an_event_is_as_long_as_its_encoded_form(event: Event) -> None:
    assert event_bytes(event) == len(encode_events([event])) - len("[]")


def test_the_memory_of_objects_is_that_of_all_they_hold() -> None:
    text = "x" * 10_000
    nested = {"choices": [{"delta": {"content": text}}]}
    for events in ([text], [nested], [nested, "a"]):
        assert 10_000 < memory_bytes(events) < 11_000  # type: ignore[arg-type]
    assert memory_bytes(["a"] * 100) > 5000, "a short text takes far more memory than its one byte"


class Following:
    """A reader of a request whose tokens are written and pushed."""

    def __init__(self, world: World, feed: RequestFeed) -> None:
        limits = ReaderLimits(BUFFER_BYTES, keepalive_secs=60, retry_for_secs=0.0)
        self.reader = TokenReader(world.store, feed, RateLimiter(), limits, fresh=True)

    @property
    def held_bytes(self) -> int:
        return sum(size for _, size in self.reader._live)

    async def read(self, count: int) -> list[Event]:
        found: list[Event] = []
        async with asyncio.timeout(5):
            while len(found) < count:
                item = await self.reader.next()
                assert isinstance(item, Tokens)
                assert item.first == len(found) + 1
                found += item.events
        return found


@pytest.fixture
async def feed(world: World) -> RequestFeed:
    await world.run()
    return RequestFeed("r", lambda feed: None)


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("size", [10, 5000, BUFFER_BYTES // 2, 2 * BUFFER_BYTES])
async def test_a_reader_holds_a_bounded_number_of_bytes_and_loses_nothing(
    world: World, feed: RequestFeed, size: int
) -> None:
    count = 1500 if size == 10 else 20
    texts = [token(number, size) for number in range(1, count + 1)]
    readers = [Following(world, feed) for _ in range(3)]
    for number, text in enumerate(texts, 1):
        await append(world, number, [text])
        feed.take_tokens(f"1-{number}", [text])
        assert all(following.held_bytes <= BUFFER_BYTES for following in readers)
    for following in readers:
        assert await following.read(count) == texts
        following.reader.close()


@pytest.mark.leaves_inflight
async def test_a_reader_that_reads_on_may_hold_as_much_again(world: World, feed: RequestFeed) -> None:
    following = Following(world, feed)
    text = "x" * (BUFFER_BYTES // 4)
    for number in range(1, 40):
        feed.take_tokens(f"1-{number}", [text])
        assert following.held_bytes > 0, "it has not gone back to the stream, which is empty"
        assert await following.reader.next() == Tokens(1, number, [text])
    following.reader.close()


async def test_readers_of_one_request_measure_a_push_once(
    world: World, feed: RequestFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(events: list[Event]) -> int:
        measured.append(len(events))
        return memory_bytes(events)

    monkeypatch.setattr("lifecycle.tokens.feed.memory_bytes", measure)
    readers = [Following(world, feed) for _ in range(5)]
    feed.take_tokens("1-2", ["a", "b"])
    feed.take_tokens("1-3", ["c"])
    assert measured == [2, 1]
    for following in readers:
        following.reader.close()
    await world.finish()


@pytest.mark.parametrize(
    ("sizes", "page_bytes", "pages"),
    [
        ([100] * 8, 250, [3, 3, 2]),
        ([1000, 1000, 10, 10], 100, [1, 1, 2]),
        ([10, 10, 5000, 10], 1000, [3, 1]),
        ([10] * (PAGE_ENTRIES + 1), 1_000_000, [PAGE_ENTRIES - 1, 2]),  # the first entry opens the attempt
    ],
)
async def test_a_page_of_the_stream_ends_at_its_bytes(
    world: World, sizes: list[int], page_bytes: int, pages: list[int]
) -> None:
    await world.run()
    for number, size in enumerate(sizes, 1):
        await append(world, number, [token(number, size)])
    await world.finish(len(sizes))
    found: list[int] = []
    texts: list[Event] = []
    after = "0-0"
    while True:
        page = await read_history(world.store, "r", after, page_bytes=page_bytes)
        tokens = [item for item in page.items if isinstance(item, Tokens)]
        found += [len(tokens)] if tokens else []
        texts += [event for item in tokens for event in item.events]
        after = page.next_id
        if page.exhausted:
            break
    assert isinstance(page.items[-1], End)
    assert texts == [token(number, size) for number, size in enumerate(sizes, 1)]
    assert found == pages
    behind = await read_history(world.store, "r", after, page_bytes=page_bytes)
    assert (behind.items, behind.exhausted) == ([], True)


@pytest.fixture
async def writer(world: World) -> AsyncIterator[TokenWriter]:
    writer = TokenWriter(world.store, ["w0"])
    flushing = asyncio.create_task(writer.run())
    yield writer
    await tasks.end([flushing])


def ignore(why: Refusal) -> None:
    pass


def put(sink: TokenSink, event: Event) -> bool:
    return sink.put(event, event_bytes(event) - 2)  # without the quotes


@pytest.mark.parametrize(("size", "count"), [(1, SINK_TOKENS), (SINK_BYTES // 4, 4), (SINK_BYTES, 1)])
async def test_a_full_sink_holds_its_engine_back(world: World, writer: TokenWriter, size: int, count: int) -> None:
    """The engine never gives the loop away, so nothing is flushed before it waits."""
    await world.run()
    sink = writer.open("r", unchecked(), ignore)
    texts = [token(number, size) for number in range(1, count + 1)]
    assert [put(sink, text) for text in texts] == [True] * (count - 1) + [False]
    async with asyncio.timeout(5):
        await sink.drained()
    assert put(sink, "more")
    assert (await sink.finish(COMPLETED, 0.0)).what == "done"
    assert await world.tokens() == "".join([*texts, "more"])


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        ([1] * (ENTRY_TOKENS + 3), [ENTRY_TOKENS, 3]),
        ([ENTRY_BYTES // 4 - TOKEN_BYTES] * 9, [4, 4, 1]),
        ([TOKEN_BYTES] * (ENTRY_TOKENS + 1), [ENTRY_TOKENS, 1]),
        ([10, ENTRY_BYTES, ENTRY_BYTES + 1, 10], [1, 1, 1, 1]),
        ([3 * ENTRY_BYTES], [1]),
    ],
)
async def test_an_entry_is_bounded_in_bytes(
    world: World, writer: TokenWriter, sizes: list[int], lengths: list[int]
) -> None:
    await world.run()
    sink = writer.open("r", unchecked(), ignore)
    texts = [token(number, size) for number, size in enumerate(sizes, 1)]
    for text in texts:
        put(sink, text)
    assert (await sink.finish(COMPLETED, 0.0)).what == "done"
    found = await entries(world)
    assert [event for entry in found for event in entry] == texts
    assert list(map(len, found)) == lengths


@pytest.fixture
def flushes(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Append]]:
    """Return the flushes that are sent from now on."""
    sent: list[Sequence[Append]] = []
    real = world.store.append

    async def noted(shard: int, worker: str, batch: Sequence[Append]) -> list[tuple[Append, Refusal]]:
        sent.append(batch)
        return await real(shard, worker, batch)

    monkeypatch.setattr(world.store, "append", noted)
    return sent


async def test_one_flush_is_bounded_in_bytes(
    world: World, writer: TokenWriter, flushes: list[Sequence[Append]]
) -> None:
    rids = [f"r{number}" for number in range(8)]
    for rid in rids:
        await world.run(rid)
    text = "x" * ENTRY_BYTES
    for rid in rids:
        put(writer.open(rid, unchecked(), ignore), text)
    await wait_until(lambda: sum(map(len, flushes)) == len(rids))
    sizes = [sum(len(entry.tokens) for entry in flush) for flush in flushes]
    assert len(sizes) > 2
    assert max(sizes) < FLUSH_BYTES + 2 * ENTRY_BYTES
    for rid in rids:
        await world.finish(1, rid=rid)
        assert await world.tokens(rid) == text


async def test_one_flush_is_bounded_in_requests(
    world: World, writer: TokenWriter, flushes: list[Sequence[Append]]
) -> None:
    """Redis needs up to 15 microseconds for each, so two milliseconds are over with some more than a hundred."""
    assert FLUSH_REQUESTS <= 100
    assert FLUSH_BYTES <= 48 * 1024
    rids = [f"r{number}" for number in range(2 * FLUSH_REQUESTS + 1)]
    for rid in rids:
        await world.run(rid)
    for rid in rids:
        put(writer.open(rid, unchecked(), ignore), "x")
    await wait_until(lambda: sum(map(len, flushes)) == len(rids))
    assert list(map(len, flushes)) == [FLUSH_REQUESTS, FLUSH_REQUESTS, 1]
    for rid in rids:
        await world.finish(1, rid=rid)


LARGE = "x" * 1_100_000


@pytest.mark.parametrize("in_finish", [False, True])
async def test_an_entry_of_more_than_a_megabyte_is_not_pushed_but_read(world: World, in_finish: bool) -> None:
    """Redis closes the connection of a subscriber that is 32 MB behind."""
    await world.run()
    feed = RequestFeed("r", lambda feed: None)
    following = Following(world, feed)
    observer = Counting()
    feed.observer = observer
    pushes = await Pushes.open(world.store, "f0")
    expected: list[Event] = ["a", LARGE, "b"] if not in_finish else ["a", LARGE]
    await append(world, 1, ["a"])
    if in_finish:
        last = Append("r", 1, 2, orjson.dumps([LARGE]), False)
        await world.store.finish("r", "w0", 1, COMPLETED, 2, remainder=last)
    else:
        await append(world, 2, [LARGE])
        await append(world, 3, ["b"])
        await world.finish(3)
    items = await pushes.take()
    await pushes.close()
    assert sum(len(orjson.dumps(item)) for item in items) < 5000
    reading = asyncio.create_task(following.read(len(expected)))
    await asyncio.sleep(0)
    for _, entry_id, payload in items:
        if isinstance(payload, list):
            feed.take_tokens(entry_id, payload)
        else:
            feed.take_event(payload)
    assert await reading == expected
    end = await following.reader.next()
    assert isinstance(end, End)
    assert (end.status, end.last) == ("completed", len(expected))
    assert observer.tokens == (1 if in_finish else 3)
    following.reader.close()


class Counting:
    """Count the tokens of a feed."""

    def __init__(self) -> None:
        self.tokens = 0

    def on_tokens(self, count: int, gap_secs: float) -> None:
        self.tokens += count

    def on_started(self) -> None:
        pass

    def on_requeued(self) -> None:
        pass

    def on_terminal(self, record: RequestRecord) -> None:
        pass
