"""One client's view of a token stream: resumable, bounded, never out of order.

A reader follows the feed while it keeps up; while its client waits, tokens go straight to the `tap`. When it starts in
the middle, sees a gap, or holds more than its bound, it goes back to the stream in Redis, page by page, and follows
again from where that ends. A gap that the stream cannot fill ends it with `state_lost`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Literal

from redis.exceptions import RedisError

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.errors import StoreUnavailable
from lifecycle.ids import START, TokenId
from lifecycle.store.scripts import Store
from lifecycle.tokens.feed import Feed
from lifecycle.tokens.history import End, Opened, Tokens, read_history
from lifecycle.types import ErrorType, Status

log = logging.getLogger(__name__)


class Silence(Enum):
    """Nothing came for a keepalive interval; the request still lives, as far as is known."""

    SILENCE = 0


SILENCE: Literal[Silence.SILENCE] = Silence.SILENCE
Item = Tokens | End | Literal[Silence.SILENCE]

_GAP = "Redis lost a part of the token stream"
_READ_IS_LOST = "Redis lost the part of the token stream that was read"


class TokenReader:
    """Items by `await next()`; an End is the last. The owner calls `close()`."""

    def __init__(
        self,
        store: Store,
        feed: Feed,
        looks: RateLimiter,
        *,
        after: TokenId = START,
        fresh: bool = False,
        buffer_tokens: int,
        keepalive_secs: float,
        retry_for_secs: float,
    ) -> None:
        """`fresh`: the request is only being admitted, so there is no history to read."""
        self.attempt, self.number = after
        self.feed = feed
        self.on_events: Callable[[Tokens], bool] | None = None  # is given what follows at once; False: not taken
        self.on_end: Callable[[End], None] | None = None  # is told with the tap; it comes by next() all the same
        self._store = store
        self._looks = looks
        self._history: deque[Tokens | End | Opened] = deque()  # read from the stream, delivered first
        self._live: deque[Tokens | End] = deque()  # pushed by the feed
        self._live_tokens = 0
        self._buffer_tokens = buffer_tokens
        self._behind = not fresh  # the stream must be read before the feed can be followed
        self._more = False  # by the record there is more in the stream than was read: tokens, or the end
        self._aborted: End | None = None
        self._patience_secs = retry_for_secs
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._keepalive_secs = keepalive_secs
        self._silent = False
        self._stale = False
        self._active_at = self._loop.time()
        self._timer = self._loop.call_later(keepalive_secs, self._tick)
        self._asking: asyncio.TimerHandle | None = None
        feed.add(self)

    def close(self) -> None:
        self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._live.clear()
        self._history.clear()
        self.on_events = self.on_end = (
            None  # whose owner knows this reader: a circle, for the garbage collector to find
        )
        self.feed.remove(self)

    def push(self, item: Tokens | End) -> None:
        """From the feed. Past the bound everything held is dropped: the stream in Redis has it."""
        if self._behind:
            return
        if self._waiter is not None and self._pour(item):
            return
        self._live.append(item)
        if isinstance(item, Tokens):
            self._live_tokens += len(item.texts)
            if self._live_tokens > self._buffer_tokens:
                self._fall_behind()
        self._wake()

    def _pour(self, item: Tokens | End) -> bool:
        """To the tap, if it is the very next, and the owner of `next()` waits with nothing held."""
        if self.on_events is None or self._live or self._waiter is None or self._waiter.done():
            return False
        if isinstance(item, End):
            if self.on_end is not None and item.last == self.number:
                self.on_end(item)
            return False
        attempt, first, texts = item
        number = self.number
        if first != number + 1 or (attempt != self.attempt and number > 0) or not self.on_events(item):
            return False
        self.attempt, self.number = attempt, number + len(texts)
        self._more = False
        self._active_at = self._loop.time()
        return True

    def mark_stale(self) -> None:
        """Look at the record now: Redis may have lost it."""
        self._silent = self._stale = True
        self._wake()

    def abort(self, end: End) -> None:
        """End now with this, whatever is still held."""
        self._aborted = end
        self._wake()

    async def next(self) -> Item:
        """The next item, waiting for it. No token comes twice, out of order, or behind a gap."""
        while True:
            item = self.next_nowait()
            if item is not None:
                self._active_at = self._loop.time()
                return item
            if self._behind:
                await self._catch_up()
            elif self._silent:
                look, self._silent, self._stale = self._stale, False, False
                self._ask_for_look()
                if not look or await self._still_lives():
                    return SILENCE
            else:
                await self._wait()

    def next_nowait(self) -> Tokens | End | None:
        """What is there already, so that several items can share one write; None when there is nothing."""
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
        while self._live and not self._behind:
            held = self._live.popleft()
            if isinstance(held, Tokens):
                self._live_tokens -= len(held.texts)
                if held.attempt > self.attempt and self.number > 0 and held.last > self.number:
                    self._fall_behind()  # the stream says where that attempt begins: nothing is spliced unseen
                    break
            if self._leaves_gap(held):
                self._fall_behind()
                break
            item = self._accept(held)
            if item is not None:
                return item
        return None

    def _leaves_gap(self, item: Tokens | End | Opened) -> bool:
        """Whether tokens are missing between what was delivered and this."""
        if isinstance(item, Tokens):
            return item.first > self.number + 1
        return (item.base if isinstance(item, Opened) else item.last) > self.number

    def _accept(self, item: Tokens | End | Opened) -> Tokens | End | None:
        """Trim what was delivered before. None when nothing is left. There is no gap before it."""
        if isinstance(item, Opened):
            if item.base < self.number:
                return self._lost(_READ_IS_LOST)
            self.attempt = item.attempt
            return None
        if isinstance(item, End):
            return item if item.last == self.number else self._lost(_READ_IS_LOST)
        if item.last <= self.number:
            return None
        texts = item.texts[self.number + 1 - item.first :] if item.first <= self.number else item.texts
        accepted = Tokens(item.attempt, self.number + 1, texts)
        self.attempt, self.number = item.attempt, item.last
        self._more = False
        return accepted

    def _fall_behind(self) -> None:
        self._behind = True
        self._live.clear()
        self._live_tokens = 0

    async def _catch_up(self) -> None:
        """Read one page. What the feed pushes meanwhile is held, so that nothing falls in between."""
        self._behind = False
        try:
            after = f"{self.attempt}-{self.number}"
            page = await read_history(self._store, self.feed.rid, after, self._patience_secs)
        except (StoreUnavailable, RedisError, ValueError) as failure:
            self._fail(failure)
            return
        self._history.extend(page.items)
        if not page.exhausted:
            self._fall_behind()  # the next page, not the feed, comes next
        elif not page.items and not self._live:
            await self._still_lives(caught_up=True)

    async def _still_lives(self, *, caught_up: bool = False) -> bool:
        """A lost message costs seconds, not a hanging client: the record tells whether there is more to come."""
        try:
            record = await self._store.read(self.feed.rid, retry_for_secs=self._patience_secs)
        except (StoreUnavailable, RedisError, ValueError) as failure:
            self._fail(failure)
            return False
        if record is None:
            self.abort(self._lost("Redis lost the request"))
        elif self.number > record.output_tokens or self.attempt > record.attempt:
            self.abort(self._lost(_READ_IS_LOST))
        elif self._live or self._aborted is not None:
            return True
        elif record.status.terminal or record.output_tokens > self.number:
            if caught_up and self._more:
                self.abort(self._lost(_GAP))
            else:
                self._more = True
                self._fall_behind()
        else:
            return True
        return False

    def _fail(self, failure: StoreUnavailable | RedisError | ValueError) -> None:
        """Redis is away, or holds what is no token stream: whoever waits deserves an end all the same."""
        if isinstance(failure, StoreUnavailable):
            self.abort(End(Status.FAILED, ErrorType.UNAVAILABLE, failure.message, "", self.number))
        else:
            log.error("the token stream of %s cannot be read", self.feed.rid, exc_info=failure)
            self.abort(End(Status.FAILED, ErrorType.INTERNAL, "The token stream cannot be read", "", self.number))

    def _lost(self, message: str) -> End:
        return End(Status.FAILED, ErrorType.STATE_LOST, message, "", self.number)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ask_for_look(self) -> None:
        """Soon, and at no time of its own."""
        if self._asking is None:
            self._asking = self._loop.call_later(self._looks.next_secs(self._keepalive_secs), self._look_or_ask_again)

    def _look_or_ask_again(self) -> None:
        self._asking = None
        if self._looks.take():
            self.mark_stale()
        else:
            self._ask_for_look()

    def _tick(self) -> None:
        """Re-armed lazily: a token costs no timer."""
        left = self._active_at + self._keepalive_secs - self._loop.time()
        if left <= 0.001:
            self._silent = True
            self._active_at = self._loop.time()
            self._wake()
            left = self._keepalive_secs
        self._timer = self._loop.call_later(left, self._tick)
