"""Append the tokens of all requests of a worker to Redis, in natural batches.

One flush is under way in each shard; what the engines yield meanwhile forms the next one. So an idle worker adds no
delay and a busy one sends large batches. Once tokens of several requests arrive within two milliseconds, flushes keep
that distance, because each of them wakes this process, Redis, and every frontend that reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.encoding import Encodable, encode_events
from lifecycle.errors import Fenced, StoreUnavailable
from lifecycle.store.results import Append, Ended, Outcome, Refusal, Start, StartedAttempt
from lifecycle.store.transitions import Store
from lifecycle.tokens.flush_pacer import FlushPacer

log = logging.getLogger(__name__)

# Of one flush, which keeps Redis busy for about two milliseconds at most: for a request it needs 8 microseconds, or 15
# with the first token, and for a kibibyte up to 12. It ends with the entry that reaches the bytes, however long.
FLUSH_REQUESTS = 100
FLUSH_BYTES = 48 * 1024
TOKEN_BYTES = 256  # a longer event counts as several tokens, so the following are bounds in bytes too
SINK_TOKENS = 1024  # unflushed tokens of one request from which its engine waits: 256 KiB
ENTRY_TOKENS = 512  # tokens in one stream entry at most: 128 KiB, unless a single event is longer
_FLUSH_DISTANCE_SECS = 0.002
_PAYS_AT = 3  # flushes keep the distance while so many requests have tokens in that time
_LONGEST_PAUSE_SECS = 0.5


class Reported(NamedTuple):
    """The end of an attempt as it was reported: see Store.finish."""

    started: StartedAttempt
    outcome: Outcome
    last: int
    remainder: Append | None
    length: int | None


class TokenSink:
    """Take the tokens of one attempt's engine until they are flushed."""

    def __init__(self, writer: TokenWriter, rid: str, start: Start, on_refused: Callable[[Refusal], None]) -> None:
        """See TokenWriter.open."""
        self.rid = rid
        self.started = StartedAttempt(start.attempt, start.nonce)
        self.shard = writer.store.keys.shard_of(rid)
        self.closed = False  # takes nothing more; what a flush holds has been withdrawn from it
        self.reported: Reported | None = None  # what `finish` has sent last
        self.has_sent = False  # tokens of this attempt were sent to Redis, so readers may have them
        self.openings = 0  # how many tokens, the first ones of the request, say only that an answer begins
        self._on_refused: Callable[[Refusal], None] | None = on_refused
        self._writer = writer
        self._lane = writer.lanes[self.shard]
        self._events: list[Encodable] = []
        self._surplus: dict[int, int] = {}  # by the numbers of long ones: how many more tokens each counts as
        self._surplus_tokens = 0  # their sum
        self._base = start.base  # events that earlier attempts have left
        self._length = start.length  # entries that the stream has for certain; None leaves it unchecked
        self._must_check = False  # Redis may have lost entries: the next append checks the one before it
        self._number = start.base  # of the last token taken for a flush
        self._flushing: list[Encodable] = []  # taken for the flush that is under way and not confirmed
        self._dropped = 0  # events that were put but can no longer be appended
        self._stalled = False  # that flush was refused or not answered, and is repeated
        self._ending = False  # further tokens are dropped: the attempt has ended, whatever its engine still yields
        self._progress: asyncio.Event | None = None  # set when a flush ends or stalls, or the sink is closed
        self._queued = False

    @property
    def number(self) -> int:
        """Return the number of the last token that was put."""
        return self._number + len(self._events)

    @property
    def has_content(self) -> bool:
        """Return whether a token was put that is no opening."""
        return self.number > self.openings

    @property
    def produced(self) -> int:
        """Return how many tokens of this attempt were put, those that can no longer be appended included."""
        return self.number + self._dropped - self._base

    def put(self, event: Encodable, size: int) -> bool:
        """Take one event of `size` bytes. Returns False when the engine should await `drained()` before the next."""
        if self.closed or self._ending:
            self._dropped += 1
            return True
        self._events.append(event)
        if size > TOKEN_BYTES:
            surplus = self._surplus[self.number] = size // TOKEN_BYTES
            self._surplus_tokens += surplus
        if not self._queued:
            self._queue()
        return len(self._events) + self._surplus_tokens < SINK_TOKENS

    def end(self) -> None:
        """Take no more tokens. What fits into one entry is left for `finish`."""
        self._ending = True

    async def drained(self) -> None:
        """Wait until the sink takes further tokens without growing past its bound, or takes none at all."""
        while self._tokens >= SINK_TOKENS and not (self.closed or self._ending):
            await self._wait_for_progress()

    def discard(self) -> None:
        """Drop what is not flushed and take nothing more: the request has ended or belongs to another worker."""
        self._close()
        self._dropped += len(self._events)
        self._take(len(self._events))
        self._notify()

    async def finish(self, outcome: Outcome, retry_for_secs: float) -> Ended:
        """Close the attempt and send the last tokens along; of a cancelled attempt none are sent. See Store.finish.

        It does not wait for a flush that Redis refuses or does not answer: the tokens of that flush are sent again, and
        Redis drops those it already has.
        Raises StoreUnavailable.
        """
        self._ending = True
        if outcome.status == "cancelled":
            self.discard()
        while (self._flushing or self._tokens > ENTRY_TOKENS) and not (self._stalled or self.closed):
            await self._wait_for_progress()
        if not self.closed:
            self._withdraw()
        remainder = self._entry(self._take(len(self._events))) if self._events else None
        self._close()
        # Which events of earlier attempts had content is not known; all but openings are counted.
        outcome = outcome._replace(
            content_events=max(0, self._base - self.openings) + outcome.content_events,
            produced_events=self._number + self._dropped,
        )
        self.reported = Reported(self.started, outcome, self._number, remainder, self._length)
        return await self._writer.store.finish(
            self.rid,
            self._writer.workers[self.shard],
            self.started.attempt,
            outcome,
            self._number,
            remainder=remainder,
            nonce=self.started.nonce,
            length=self._length,
            retry_for_secs=retry_for_secs,
        )

    def begin_flush(self) -> Append | None:
        """Return the next entry to append; None when there is nothing to flush."""
        self._queued = False
        if not self._events or (self._ending and self._tokens <= ENTRY_TOKENS):
            return None
        self._flushing = self._take(self._entry_length() if self._surplus else ENTRY_TOKENS)
        self.has_sent = True
        entry = self._entry(self._flushing)
        if self._must_check:
            self._must_check = False
            entry = self.checked(entry)
        return entry

    def checked(self, entry: Append) -> Append:
        """Return the entry of the flush under way, to be appended only if Redis has the tokens before it."""
        return entry._replace(before=self._number - len(self._flushing))

    def stall(self) -> None:
        """Note that the flush is going to be repeated."""
        self._stalled = True
        self._notify()

    def recheck(self) -> None:
        """Let the next append check that Redis has the tokens before it: Redis may have lost data."""
        self._must_check = True

    def end_flush(self) -> None:
        """Note that the flush has ended, and queue the next one if there is more."""
        self._flushing = []
        if self._length is not None:
            self._length += 1
        self._stalled = False
        self._notify()
        if self._events and not self._queued and not self.closed:
            self._queue()

    def refuse(self, why: Refusal) -> None:
        """Report that Redis refused the flush; a closed sink has nobody to report to."""
        if self._on_refused is not None:
            self._on_refused(why)

    def _close(self) -> None:
        self.closed = True
        self._on_refused = None  # refers to an owner that refers to this sink: break the cycle

    def _queue(self) -> None:
        self._queued = True
        self._lane.waiting.append(self)
        self._writer.wake()

    @property
    def _tokens(self) -> int:
        """How many tokens the unflushed events count as."""
        return len(self._events) + self._surplus_tokens

    def _entry_length(self) -> int:
        """Return how many events the next entry has, if some are long: those that fit, but at least one."""
        most = min(len(self._events), ENTRY_TOKENS)
        tokens = 0
        for count in range(most):
            tokens += 1 + self._surplus.get(self._number + 1 + count, 0)
            if tokens > ENTRY_TOKENS:
                return max(count, 1)
        return most

    def _take(self, count: int) -> list[Encodable]:
        events = self._events
        if len(events) <= count:
            self._events = []
            if self._surplus:
                self._surplus.clear()
                self._surplus_tokens = 0
            return events
        if self._surplus:
            for number in range(self._number + 1, self._number + 1 + count):
                self._surplus_tokens -= self._surplus.pop(number, 0)
        self._events = events[count:]
        return events[:count]

    def _entry(self, events: list[Encodable]) -> Append:
        before, self._number = self._number, self._number + len(events)
        first = before <= self.openings < self._number
        attempt, nonce = self.started
        return Append(self.rid, attempt, self._number, encode_events(events), first, nonce, None, len(events))

    def _withdraw(self) -> None:
        """Take back what a stalled flush holds, for the finish. Redis may have executed it all the same."""
        self._events = self._flushing + self._events
        self._number -= len(self._flushing)
        self._flushing = []

    async def _wait_for_progress(self) -> None:
        self._progress = self._progress or asyncio.Event()
        self._progress.clear()
        await self._progress.wait()

    def _notify(self) -> None:
        if self._progress is not None:
            self._progress.set()


class _Lane:
    """Queue the sinks of one shard that have something to flush."""

    def __init__(self) -> None:
        self.waiting: deque[TokenSink] = deque()
        self.wake = asyncio.Event()


class TokenWriter:
    """Flush the sinks of one worker. `run()` belongs into the caller's task group."""

    def __init__(self, store: Store, workers: Sequence[str], on_fenced: Callable[[], None] = lambda: None) -> None:
        """`workers` has the id under which each shard knows the worker. `on_fenced` is called when one has expired."""
        self.store = store
        self.workers = workers
        self._on_fenced = on_fenced
        self.lanes = [_Lane() for _ in range(store.settings.shards)]
        self._pacer = FlushPacer(distance_secs=_FLUSH_DISTANCE_SECS, pays_at=_PAYS_AT)
        self._waking: asyncio.Handle | None = None

    def open(self, rid: str, start: Start, on_refused: Callable[[Refusal], None]) -> TokenSink:
        """Return a sink for the attempt that `start` allows, whose tokens are numbered from its base + 1.

        `on_refused` is called when Redis refuses a flush. Redis does not compare a nonce and a length that `start` has
        not.
        """
        return TokenSink(self, rid, start, on_refused)

    async def run(self) -> None:
        """Flush until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for shard in range(len(self.lanes)):
                    group.create_task(self._flush_shard(shard), name=f"flush-{shard}")
        finally:
            if self._waking is not None:
                self._waking.cancel()

    def wake(self) -> None:
        """Flush soon: a sink has tokens. All shards flush in one turn of the loop, which makes one pipeline."""
        if self._waking is None:
            loop, wait_secs = asyncio.get_running_loop(), self._pacer.wait_secs()
            self._waking = loop.call_later(wait_secs, self._wake_soon) if wait_secs else loop.call_soon(self._wake)

    def _wake_soon(self, turns: int = 2) -> None:
        """Flush a few turns of the loop later: timers that fire now wake engines, whose tokens share the flush."""
        call_soon = asyncio.get_running_loop().call_soon
        self._waking = call_soon(self._wake_soon, turns - 1) if turns > 1 else call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = None
        self._pacer.step(sum(len(lane.waiting) for lane in self.lanes))
        for lane in self.lanes:
            if lane.waiting:
                lane.wake.set()

    async def _flush_shard(self, shard: int) -> None:
        lane = self.lanes[shard]
        while True:
            await lane.wake.wait()
            sinks: list[TokenSink] = []
            batch: list[Append] = []
            size = 0
            while lane.waiting and len(batch) < FLUSH_REQUESTS and size < FLUSH_BYTES:
                sink = lane.waiting.popleft()
                entry = sink.begin_flush()
                if entry is not None:
                    sinks.append(sink)
                    batch.append(entry)
                    size += len(entry.tokens)
            if not lane.waiting:
                lane.wake.clear()
            if batch:
                try:
                    await self._append(shard, batch, {s.rid: s for s in sinks})
                finally:
                    for sink in sinks:
                        sink.end_flush()

    async def _append(self, shard: int, batch: list[Append], sinks: dict[str, TokenSink]) -> None:
        """Append a batch, repeatedly until Redis has answered: entry ids make a repetition harmless."""
        pause = 0.01
        while True:
            try:
                refused = await self.store.append(shard, self.workers[shard], batch)
            except Fenced:
                self._on_fenced()
                refused = [(entry, "expired") for entry in batch]
            except StoreUnavailable:
                tasks.check_cancelled()
                for sink in sinks.values():
                    sink.stall()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECS)
                # The repetition may reach another server, which may have lost the tokens before.
                batch = [sinks[entry.rid].checked(entry) for entry in batch if not sinks[entry.rid].closed]
                if not batch:
                    return
                continue
            except RedisError:
                # Redis refuses the flush itself, for example because a key has the wrong type: repeating cannot help.
                log.exception("Redis refused to append tokens of %d requests", len(batch))
                refused = [(entry, "gone") for entry in batch]
            for entry, why in refused:
                sinks[entry.rid].refuse(why)
            return
