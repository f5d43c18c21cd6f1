"""Deliver a token stream to one client: resumable, bounded, and never out of order.

A reader follows the request's feed while it keeps up; while its client waits, tokens are passed to `on_events` at once.
When it starts in the middle, sees a gap, or holds more than its bound, it reads the stream in Redis, page by page, and
follows the feed again from where the stream ends. A gap that the stream cannot fill ends it with `state_lost`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Literal, NamedTuple

from redis.exceptions import RedisError

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.errors import StoreUnavailable
from lifecycle.ids import START, TokenId
from lifecycle.store.results import START_LOST
from lifecycle.store.transitions import Store
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tokens.history import PAGE_BYTES, read_history
from lifecycle.tokens.items import End, Opened, Tokens
from lifecycle.tokens.read_start import ReadStart
from lifecycle.types import ErrorType, RequestRecord, Status, Storage

log = logging.getLogger(__name__)


class Silence(Enum):
    """Stand for a keepalive interval without any item. The request still lives, as far as is known."""

    SILENCE = 0


SILENCE: Literal[Silence.SILENCE] = Silence.SILENCE
Item = Tokens | End | Literal[Silence.SILENCE]


class _Source(Enum):
    """Name the source of a reader's next items."""

    FEED = auto()
    """Items come from the feed; what was read of the stream before is delivered first."""

    STREAM = auto()
    """The stream must be read next; what the feed pushes is dropped, because the stream has it."""

    STREAM_HAS_MORE = auto()
    """Like STREAM; in addition, by its record the request has tokens or an end that the stream did not show before.
    If the stream shows nothing again, Redis has lost them."""


_FEED = _Source.FEED  # a global name: looking a member up in its enum costs each token more than the comparison


class _Overdue(Enum):
    """Name what a reader must do because nothing came. Independent of `_Source`: either source may be silent."""

    NOTHING = auto()
    """Something came within the keepalive interval."""

    KEEPALIVE = auto()
    """A keepalive interval has passed without an item: `next()` returns SILENCE."""

    RECORD_CHECK = auto()
    """A push may have been lost: the record must be read before SILENCE may be returned."""


_NOTHING, _RECORD_CHECK = _Overdue.NOTHING, _Overdue.RECORD_CHECK


class ReaderLimits(NamedTuple):
    """Bound what one reader holds and how long it waits."""

    buffer_bytes: int  # memory of the events held; a reader that needs more drops them and reads the stream
    keepalive_secs: float  # SILENCE is returned after this time without an item
    retry_for_secs: float  # how long a read of Redis is repeated while Redis is unavailable


_GAP = "Redis lost a part of the token stream"
_PAGES_PER_BUFFER = 8  # decoded, a page takes up to about so many times its bytes
_READ_IS_LOST = "Redis lost the part of the token stream that was read"
_REMOVED = "The events of this request are no longer stored"


def _is_removed(record: RequestRecord) -> bool:
    """Return whether the events are gone on purpose: they were deleted, or were only for the readers at the end."""
    return record.status.terminal and record.storage in (Storage.DELETED, Storage.TRANSIENT)


class TokenReader:
    """Return items by `await next()`; an End is the last. The owner must call `close()`."""

    def __init__(
        self,
        store: Store,
        feed: RequestFeed,
        record_polls: RateLimiter,
        limits: ReaderLimits,
        *,
        after: TokenId = START,
        fresh: bool = False,
    ) -> None:
        """Begin behind the token `after`. `fresh`: the request is only being admitted, so the stream is still empty."""
        self.attempt, self.number = after  # of the last token delivered
        self._start = ReadStart.before(after)  # of the attempt of that token
        self.feed = feed
        # Both are called only while the owner waits in `next()`. `on_events` is given what follows, and returns whether
        # it took it; `on_end` is given the end, which `next()` returns all the same.
        self.on_events: Callable[[Tokens], bool] | None = None
        self.on_end: Callable[[End], None] | None = None
        self._store = store
        self._record_polls = record_polls
        self._limits = limits
        self._history: deque[Tokens | End | Opened] = deque()  # read from the stream, delivered first
        self._live: deque[tuple[Tokens | End, int]] = deque()  # pushed by the feed, with the memory that it takes
        self._free_bytes = limits.buffer_bytes  # how much more may be held
        self._page_bytes = min(PAGE_BYTES, limits.buffer_bytes // _PAGES_PER_BUFFER)
        self._source = _FEED if fresh else _Source.STREAM
        self._overdue = _NOTHING
        self._aborted: End | None = None
        self._loop = feed.loop
        self._waiter: asyncio.Future[None] | None = None
        self._active_at = self._loop.time()
        self._timer = self._loop.call_later(limits.keepalive_secs, self._tick)
        self._poll_timer: asyncio.TimerHandle | None = None
        feed.add(self)

    def close(self) -> None:
        """Leave the feed and drop what is held."""
        self._timer.cancel()
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        self._live.clear()
        self._history.clear()
        self.on_events = self.on_end = None  # they refer to an owner that refers to this reader: break the cycle
        self.feed.remove(self)

    def push(self, item: Tokens | End) -> None:
        """Take an item from the feed. Past the bound everything held is dropped: the stream in Redis has it."""
        if self._source is not _FEED:
            return
        if self._waiter is not None and self._pass_on(item):
            return
        size = self.feed.memory_of(item) if isinstance(item, Tokens) else 0
        self._live.append((item, size))
        self._free_bytes -= size
        if self._free_bytes < 0:
            self._go_back_to_stream()
        self._wake()

    def _pass_on(self, item: Tokens | End) -> bool:
        """Give the item to `on_events` if it is the very next, and the owner of `next()` waits with nothing held."""
        if self.on_events is None or self._live or self._waiter is None or self._waiter.done():
            return False
        if isinstance(item, End):
            if self.on_end is not None and item.last == self.number:
                self.on_end(item)
            return False
        attempt, first, events, nonce = item
        number, start = self.number, self._start
        if first != number + 1 or ((attempt != self.attempt or nonce != start.nonce) and number > 0):
            return False
        if not self.on_events(item):
            return False
        self.attempt, self.number, start.nonce = attempt, number + len(events), nonce
        self._active_at = self._loop.time()
        return True

    def mark_stale(self) -> None:
        """Read the record as soon as `next()` is waited for: a push may have been lost, or Redis may have lost data."""
        self._overdue = _Overdue.RECORD_CHECK
        self._wake()

    def reread(self) -> None:
        """Compare what was delivered with the stream before anything else is: an attempt was started anew."""
        self._go_back_to_stream()
        self._wake()

    def interrupt(self) -> None:
        """Let `next()` return SILENCE if it has nothing else to return."""
        if self._overdue is _NOTHING:
            self._overdue = _Overdue.KEEPALIVE
        self._wake()

    def abort(self, end: End) -> None:
        """End with `end` now; what is still held is not delivered."""
        self._aborted = end
        self._wake()

    async def next(self) -> Item:
        """Return the next item, or SILENCE after a keepalive interval without one.

        No token comes twice, out of order, or behind a gap. Failures of Redis are returned as an End.
        """
        while True:
            item = self.next_nowait()
            if item is not None:
                self._active_at = self._loop.time()
                return item
            if self._source is not _FEED:
                await self._catch_up()
            elif self._overdue is not _NOTHING:
                overdue, self._overdue = self._overdue, _NOTHING
                self._schedule_poll()
                if overdue is _Overdue.KEEPALIVE or (await self._check_record() and not self._live):
                    return SILENCE
            else:
                await self._wait()

    def next_nowait(self) -> Tokens | End | None:
        """Return an item that is already here, so that several can share one write; None when there is none."""
        if self._aborted is not None:
            return self._aborted
        while self._history:
            read = self._history.popleft()
            if self._leaves_gap(read):  # in the stream itself
                self.abort(self._lost(_GAP))
                return self._aborted
            item = self._accept(read)
            if item is not None:
                return item
        while self._live and self._source is _FEED and self._overdue is not _RECORD_CHECK:
            held, size = self._live.popleft()
            self._free_bytes += size
            if (
                isinstance(held, Tokens) and 0 < self.number < held.last and self._is_of_another_start(held)
            ):  # only the stream shows how many tokens the attempt before has left
                self._go_back_to_stream()
                break
            if self._leaves_gap(held):
                self._go_back_to_stream()
                break
            item = self._accept(held)
            if item is not None:
                return item
        return None

    def _is_of_another_start(self, item: Tokens) -> bool:
        return item.attempt != self.attempt or item.nonce != self._start.nonce

    def _leaves_gap(self, item: Tokens | End | Opened) -> bool:
        """Return whether tokens are missing between what was delivered and this item."""
        if isinstance(item, Tokens):
            return item.first > self.number + 1
        return (item.base if isinstance(item, Opened) else item.last) > self.number

    def _accept(self, item: Tokens | End | Opened) -> Tokens | End | None:
        """Trim what was delivered before; None when nothing is left. The caller has made sure that there is no gap."""
        if isinstance(item, Opened):
            if item.base < self.number:
                return self._lost(_READ_IS_LOST)
            self.attempt, self._start = item.attempt, ReadStart(item.nonce, item.base)
            return None
        if isinstance(item, End):
            return item if item.last == self.number else self._lost(_READ_IS_LOST)
        if item.last <= self.number:
            return None
        if item.first <= self.number:
            item = Tokens(item.attempt, self.number + 1, item.events[self.number + 1 - item.first :], item.nonce)
        self.attempt, self.number, self._start.nonce = item.attempt, item.last, item.nonce
        return item

    def _go_back_to_stream(self, source: _Source = _Source.STREAM) -> None:
        self._source = source
        self._live.clear()
        self._free_bytes = self._limits.buffer_bytes

    async def _catch_up(self) -> None:
        """Read one page of the stream. What the feed pushes meanwhile is held, so that nothing is missed in between."""
        more_expected = self._source is _Source.STREAM_HAS_MORE
        self._source = _FEED
        try:
            after = f"{self.attempt}-{self.number}"
            page = await read_history(self._store, self.feed.rid, after, self._limits.retry_for_secs, self._page_bytes)
        except (StoreUnavailable, RedisError, ValueError) as failure:
            self._fail(failure)
            return
        if self._start.differs_in(page, TokenId(self.attempt, self.number), self.feed):
            await self._end_lost_start()
            return
        self._history.extend(page.items)
        if not page.exhausted:
            self._go_back_to_stream()  # for the next page
        elif not page.items and not self._live:
            await self._check_record(more_expected=more_expected)

    async def _check_record(self, *, more_expected: bool = False) -> bool:
        """Read the record and return whether the request lives with nothing missed.

        A lost message so costs seconds, not a client that waits for ever. `more_expected`: the stream was read again
        because of what the record showed, and had nothing; then what the record shows is lost.
        """
        try:
            record = await self._store.read(self.feed.rid, retry_for_secs=self._limits.retry_for_secs)
        except (StoreUnavailable, RedisError, ValueError) as failure:
            self._fail(failure)
            return False
        if record is None:
            self.abort(self._lost("Redis lost the request"))
        elif self.number > record.stream_length or self.attempt > record.attempt:
            is_start_lost = await self._report_start()
            self.abort(self._lost(START_LOST.message if is_start_lost else _READ_IS_LOST))
        elif self._start.differs_from(record, TokenId(self.attempt, self.number), self.feed):
            await self._end_lost_start()
        elif self._live or self._aborted is not None:
            return True
        elif record.status.terminal or record.stream_length > self.number:
            if more_expected:
                self.abort(self._removed() if _is_removed(record) else self._lost(_GAP))
            else:
                self._go_back_to_stream(_Source.STREAM_HAS_MORE)
        else:
            return True
        return False

    async def _end_lost_start(self) -> None:
        """End, because Redis has lost the start of what was read."""
        self.feed.note_lost_start(self.attempt)
        await self._report_start()
        self.abort(self._lost(START_LOST.message))

    async def _report_start(self) -> bool:
        """Tell Redis the start of what was read, so that nobody joins two answers. Return whether Redis has lost it."""
        start = self._start.named(TokenId(self.attempt, self.number), self.feed)
        if start is None:
            return False
        try:
            reported = await self._store.report_lost_start(self.feed.rid, start, START_LOST)
        except (StoreUnavailable, RedisError) as failure:
            log.warning("the lost start of %s could not be reported: %s", self.feed.rid, failure)
            return False
        if reported.what == "known":
            return False
        self.feed.note_lost_start(start.attempt)
        return True

    def _fail(self, failure: StoreUnavailable | RedisError | ValueError) -> None:
        """End with an error: Redis is unavailable, or the key does not hold a token stream."""
        if isinstance(failure, StoreUnavailable):
            self.abort(End(Status.FAILED, ErrorType.UNAVAILABLE, failure.summary, "", self.number))
        else:
            log.error("the token stream of %s cannot be read", self.feed.rid, exc_info=failure)
            self.abort(End(Status.FAILED, ErrorType.INTERNAL, "The token stream cannot be read", "", self.number))

    def _lost(self, message: str) -> End:
        return End(Status.FAILED, ErrorType.STATE_LOST, message, "", self.number)

    def _removed(self) -> End:
        return End(Status.FAILED, ErrorType.NOT_FOUND, _REMOVED, "", self.number)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _schedule_poll(self) -> None:
        """Read the record at a random time soon, if it is not scheduled yet."""
        if self._poll_timer is None:
            delay_secs = self._record_polls.next_secs(self._limits.keepalive_secs)
            self._poll_timer = self._loop.call_later(delay_secs, self._poll_or_reschedule)

    def _poll_or_reschedule(self) -> None:
        self._poll_timer = None
        if self._record_polls.take():
            self.mark_stale()
        else:
            self._schedule_poll()

    def _tick(self) -> None:
        """Notice silence. The timer is re-armed only when it fires, so a token costs no timer."""
        keepalive_secs = self._limits.keepalive_secs
        left = self._active_at + keepalive_secs - self._loop.time()
        if left <= 0.001:
            if self._overdue is _NOTHING:
                self._overdue = _Overdue.KEEPALIVE
            self._active_at = self._loop.time()
            self._wake()
            left = keepalive_secs
        self._timer = self._loop.call_later(left, self._tick)
