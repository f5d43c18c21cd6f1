"""The worker's side: tokens of all its requests, appended in natural batches.

One flush is under way in each shard; what the engines yield meanwhile is the next one. So an idle worker adds no wait
and a busy one sends large batches. Once tokens of several requests come within two milliseconds, flushes keep that
distance: each wakes this process, Redis, and every frontend that reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import orjson
from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreUnavailable
from lifecycle.store.results import Append, Ended, Outcome, Refusal
from lifecycle.store.scripts import Store
from lifecycle.tokens.flush_pacer import Pace

log = logging.getLogger(__name__)

FLUSH_REQUESTS = 256
SINK_TOKENS = 256  # unflushed tokens of one request above which its engine waits
ENTRY_TOKENS = 128  # tokens in one stream entry at most
_FLUSH_DISTANCE_SECS = 0.002
_PAYS_AT = 3  # requests with tokens in that time
_LONGEST_PAUSE_SECS = 0.5


def encode_tokens(texts: list[str]) -> bytes:
    """A JSON list; lone surrogates, which have no UTF-8 form, are replaced."""
    try:
        return orjson.dumps(texts)
    except TypeError:
        return orjson.dumps([t.encode("utf-8", "replace").decode() for t in texts])


class TokenSink:
    """Where one attempt's engine puts its tokens. Numbers continue from `base`."""

    def __init__(
        self, writer: TokenWriter, rid: str, attempt: int, base: int, on_refused: Callable[[Refusal], None]
    ) -> None:
        self.rid = rid
        self.attempt = attempt
        self.shard = writer.store.keys.shard_of(rid)
        self.closed = False  # nothing more is taken, and what a flush holds has been withdrawn from it
        self._on_refused: Callable[[Refusal], None] | None = on_refused
        self._writer = writer
        self._lane = writer.lanes[self.shard]
        self._texts: list[str] = []
        self._number = base  # of the last token taken for a flush
        self._flushing: list[str] = []  # taken for the flush that is under way; not confirmed
        self._stalled = False  # that flush was refused or not answered, and is being repeated
        self._ending = False  # what an engine that was given up on still yields is dropped
        self._moved: asyncio.Event | None = None  # a flush has ended or stalled, or the sink was closed; for who waits
        self._queued = False

    @property
    def number(self) -> int:
        """Of the last token put."""
        return self._number + len(self._texts)

    def put(self, text: str) -> bool:
        """Take one token. False when the engine should await `drained()` before the next."""
        if self.closed or self._ending:
            return True
        self._texts.append(text)
        if not self._queued:
            self._queue()
        return len(self._texts) < SINK_TOKENS

    def end(self) -> None:
        """No token follows: what one entry can hold is left to `finish`."""
        self._ending = True

    async def drained(self) -> None:
        while len(self._texts) >= SINK_TOKENS and not (self.closed or self._ending):
            await self._move()

    def discard(self) -> None:
        """Drop what is not flushed and take nothing more: the request is over or someone else's."""
        self._close()
        self._texts.clear()
        self._tell()

    async def finish(self, outcome: Outcome, input_tokens: int | None, retry_for_secs: float) -> Ended:
        """Close the attempt; the last tokens travel along. See Store.finish for the answers.

        It waits for no flush that Redis refuses or leaves unanswered (full memory refuses tokens, never an end): what
        that holds travels along too, and Redis drops what it has of it already. Of a cancelled attempt nothing does.
        """
        self._ending = True
        if outcome.status == "cancelled":
            self.discard()
        while (self._flushing or len(self._texts) > ENTRY_TOKENS) and not (self._stalled or self.closed):
            await self._move()
        if not self.closed:
            self._withdraw()
        remainder = self._entry(self._take(len(self._texts))) if self._texts else None
        self._close()
        return await self._writer.store.finish(
            self.rid,
            self._writer.worker,
            self.attempt,
            outcome,
            self._number,
            remainder=remainder,
            input_tokens=input_tokens,
            retry_for_secs=retry_for_secs,
        )

    def begin_flush(self) -> Append | None:
        """The next entry to append; None when there is nothing."""
        self._queued = False
        if not self._texts or (self._ending and len(self._texts) <= ENTRY_TOKENS):
            return None
        self._flushing = self._take(ENTRY_TOKENS)
        return self._entry(self._flushing)

    def stall(self) -> None:
        """The flush is going to be repeated."""
        self._stalled = True
        self._tell()

    def end_flush(self) -> None:
        self._flushing = []
        self._stalled = False
        self._tell()
        if self._texts and not self._queued and not self.closed:
            self._queue()

    def refuse(self, why: Refusal) -> None:
        """Redis does not take the flush. What was withdrawn from it is nobody's concern any more."""
        if self._on_refused is not None:
            self._on_refused(why)

    def _close(self) -> None:
        self.closed = True
        self._on_refused = None  # leads to who holds us: a cycle would be left to the garbage collector

    def _queue(self) -> None:
        self._queued = True
        self._lane.waiting.append(self)
        self._writer.wake()

    def _take(self, count: int) -> list[str]:
        texts = self._texts
        if len(texts) <= count:
            self._texts = []
            return texts
        self._texts = texts[count:]
        return texts[:count]

    def _entry(self, texts: list[str]) -> Append:
        first = self._number == 0
        self._number += len(texts)
        return Append(self.rid, self.attempt, self._number, encode_tokens(texts), first)

    def _withdraw(self) -> None:
        """Take back what a stalled flush holds; it may have been executed all the same."""
        self._texts = self._flushing + self._texts
        self._number -= len(self._flushing)
        self._flushing = []

    async def _move(self) -> None:
        self._moved = self._moved or asyncio.Event()
        self._moved.clear()
        await self._moved.wait()

    def _tell(self) -> None:
        if self._moved is not None:
            self._moved.set()


class _Lane:
    """The sinks of one shard that have something to flush."""

    def __init__(self) -> None:
        self.waiting: deque[TokenSink] = deque()
        self.wake = asyncio.Event()


class TokenWriter:
    """One a worker. `run()` is owned by the caller's task group; it ends with Fenced when the worker was buried."""

    def __init__(self, store: Store, worker: str) -> None:
        self.store = store
        self.worker = worker
        self.lanes = [_Lane() for _ in range(store.settings.shards)]
        self._pace = Pace(distance_secs=_FLUSH_DISTANCE_SECS, pays_at=_PAYS_AT)
        self._waking: asyncio.Handle | None = None

    def open(self, rid: str, attempt: int, base: int, on_refused: Callable[[Refusal], None]) -> TokenSink:
        return TokenSink(self, rid, attempt, base, on_refused)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for shard in range(len(self.lanes)):
                    group.create_task(self._flush_shard(shard), name=f"flush-{shard}")
        finally:
            if self._waking is not None:
                self._waking.cancel()

    def wake(self) -> None:
        """A sink has something. All shards flush in one turn of the loop: over one connection, that is one pipeline."""
        if self._waking is None:
            loop, wait_secs = asyncio.get_running_loop(), self._pace.wait_secs()
            self._waking = loop.call_later(wait_secs, self._wake_soon) if wait_secs else loop.call_soon(self._wake)

    def _wake_soon(self, turns: int = 2) -> None:
        """Engines' timers fall due together with this one, and wake tasks: what they yield then shares the flush."""
        call_soon = asyncio.get_running_loop().call_soon
        self._waking = call_soon(self._wake_soon, turns - 1) if turns > 1 else call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = None
        self._pace.step(sum(len(lane.waiting) for lane in self.lanes))
        for lane in self.lanes:
            if lane.waiting:
                lane.wake.set()

    async def _flush_shard(self, shard: int) -> None:
        lane = self.lanes[shard]
        while True:
            await lane.wake.wait()
            sinks: list[TokenSink] = []
            batch: list[Append] = []
            while lane.waiting and len(batch) < FLUSH_REQUESTS:
                sink = lane.waiting.popleft()
                entry = sink.begin_flush()
                if entry is not None:
                    sinks.append(sink)
                    batch.append(entry)
            if not lane.waiting:
                lane.wake.clear()
            if batch:
                try:
                    await self._append(shard, batch, {s.rid: s for s in sinks})
                finally:
                    for sink in sinks:
                        sink.end_flush()

    async def _append(self, shard: int, batch: list[Append], sinks: dict[str, TokenSink]) -> None:
        """Repeat until Redis has answered: entry ids make a repetition harmless."""
        pause = 0.01
        while True:
            try:
                refused = await self.store.append(shard, self.worker, batch)
            except Fenced:
                for sink in sinks.values():
                    sink.refuse("fenced")
                raise
            except StoreUnavailable:
                tasks.check_cancelled()
                for sink in sinks.values():
                    sink.stall()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECS)
                batch = [entry for entry in batch if not sinks[entry.rid].closed]
                if not batch:
                    return
                continue
            except RedisError:
                # Redis refuses the flush itself (a foreign key of the wrong type, say): no repetition can help.
                log.exception("an append was refused")
                refused = [(entry, "gone") for entry in batch]
            for entry, why in refused:
                sinks[entry.rid].refuse(why)
            return
