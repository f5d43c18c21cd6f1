"""The readers of one frontend: which requests it reads, how many clients each has, and what their going means."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import orjson

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.aio.tasks import Spawn
from lifecycle.errors import Fenced, StoreUnavailable
from lifecycle.ids import START, TokenId
from lifecycle.store.results import Disconnection
from lifecycle.store.scripts import Store
from lifecycle.tokens.feed import Feed
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.types import RequestRecord

log = logging.getLogger(__name__)


class Readers:
    """Redis is told the number of a request's readers here, in order, so that a repetition changes nothing."""

    def __init__(self, store: Store, frontend_id: Callable[[], str], spawn: Spawn) -> None:
        self.feeds: dict[str, Feed] = {}
        self._store = store
        self._settings = store.settings
        self._frontend_id = frontend_id
        self._spawn = spawn
        self.looks = RateLimiter()
        self._open = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __len__(self) -> int:
        """Open streams here, and clients that wait for a unary answer."""
        return self._open

    def feed(self, rid: str) -> Feed:
        feed = self.feeds.get(rid)
        if feed is None:
            feed = self.feeds[rid] = Feed(rid, self._close_feed)
        return feed

    def fresh(self, feed: Feed) -> TokenReader:
        """The reader of the client that brings the request: there is no history yet."""
        return self._reader(feed, START, fresh=True)

    async def attach(self, rid: str, after: TokenId) -> tuple[RequestRecord, TokenReader] | None:
        """None when the request is unknown or expired."""
        feed = self.feed(rid)
        reader = self._reader(feed, after, fresh=False)
        try:
            async with feed.attaching:
                record = await self._store.attach(rid, self._frontend_id(), feed.http_readers)
        except BaseException as failure:
            feed.pin()  # who comes meanwhile shares it, and is told of with this
            self.close(reader)
            if isinstance(failure, Fenced):
                feed.unpin()
            else:
                # It may have been executed all the same, and a reader that is none would keep the request alive.
                self._spawn(self._take_back(feed), "detach")
            raise
        if record is None:
            self.close(reader)
            return None
        return record, reader

    async def detach(self, reader: TokenReader, status: ConnectionStatus, *, admitting: bool) -> Disconnection | None:
        """Close a reader and tell Redis. None when there was nothing to tell, or Redis was away for a whole lease."""
        feed = reader.feed
        feed.pin()  # who comes meanwhile shares it, and is told of after this
        self.close(reader)
        try:
            if feed.record is None or (admitting and status is ConnectionStatus.CLOSED_UNEXPECTEDLY):
                return await self.tell(feed, status, admitting=admitting)
            if admitting:
                await self._announce(feed.rid, status)
            return None  # ended: its readers are no longer counted
        except StoreUnavailable as failure:
            log.warning("the end of a connection of %s could not be written: %s", feed.rid, failure)
            return None
        finally:
            feed.unpin()

    async def _announce(self, rid: str, status: ConnectionStatus) -> None:
        """What changes nothing any more is published, and not written: the response to a request that has ended."""
        message = orjson.dumps({"type": "connection", "status": status.value})
        await self._store.commands.execute("PUBLISH", self._store.keys.channel(rid), message)

    async def _take_back(self, feed: Feed) -> None:
        """A reader that did not come to be, and that Redis may count."""
        try:
            await self.tell(feed, ConnectionStatus.CLOSED_UNEXPECTEDLY, admitting=False)
        finally:
            feed.unpin()

    async def tell(self, feed: Feed, status: ConnectionStatus, *, admitting: bool) -> Disconnection:
        async with feed.attaching:
            return await self._store.disconnect(
                feed.rid,
                self._frontend_id(),
                feed.http_readers,
                status.value,
                admitting=admitting,
                retry_for_secs=self._settings.lease_secs,
            )

    def close(self, reader: TokenReader) -> None:
        reader.close()
        self._open -= 1
        if self._open == 0:
            self._quiet.set()

    async def wait_until_quiet(self, timeout_secs: float) -> None:
        """Until no client waits for an answer here, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_secs):
                await self._quiet.wait()

    def mark_stale(self, shard: int) -> None:
        """That shard of Redis has lost data; nobody else tells those who read here what others admitted."""
        for feed in list(self.feeds.values()):
            if self._store.keys.shard_of(feed.rid) == shard:
                for reader in feed.readers:
                    reader.mark_stale()

    def end_all(self, error_type: str, message: str) -> None:
        for feed in list(self.feeds.values()):
            feed.lose(error_type, message)

    def _reader(self, feed: Feed, after: TokenId, *, fresh: bool) -> TokenReader:
        settings = self._settings
        self._open += 1
        self._quiet.clear()
        return TokenReader(
            self._store,
            feed,
            self.looks,
            after=after,
            fresh=fresh,
            buffer_tokens=settings.reader_buffer_tokens,
            keepalive_secs=settings.sse_keepalive_secs,
            retry_for_secs=settings.lease_secs,
        )

    def _close_feed(self, feed: Feed) -> None:
        if self.feeds.get(feed.rid) is feed:
            del self.feeds[feed.rid]
