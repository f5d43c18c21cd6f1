"""Hold the readers of one frontend."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import orjson

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.aio.tasks import Spawn
from lifecycle.errors import Fenced, StoreUnavailable
from lifecycle.ids import START, TokenId
from lifecycle.store.results import Disconnection
from lifecycle.store.transitions import Store
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tokens.reader import ReaderLimits, TokenReader
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.reader_reports import ReaderReports
from lifecycle.types import RequestRecord

log = logging.getLogger(__name__)

_UNEXPECTED = ConnectionStatus.CLOSED_UNEXPECTEDLY  # a global name, as in `connection`


class Readers:
    """Open and close readers."""

    def __init__(self, store: Store, state: FrontendState, spawn: Spawn) -> None:
        settings = store.settings
        self.feeds: dict[str, RequestFeed] = {}  # by request id
        self.reports = ReaderReports(store, state, self.feeds)
        self.record_polls = RateLimiter()  # bounds how many records are read only because nothing was pushed
        self._store = store
        self._state = state
        self._spawn = spawn
        self._limits = ReaderLimits(settings.reader_buffer_bytes, settings.sse_keepalive_secs, settings.lease_secs)
        self._open = 0
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    def __len__(self) -> int:
        """Return the number of open streams here, and of clients that wait for a unary answer."""
        return self._open

    def feed(self, rid: str) -> RequestFeed:
        """Return the request's feed; it is made if there is none."""
        feed = self.feeds.get(rid)
        if feed is None:
            feed = self.feeds[rid] = RequestFeed(rid, self._close_feed)
        return feed

    def fresh(self, feed: RequestFeed) -> TokenReader:
        """Return a reader for the client whose request is being admitted, so that its stream is still empty."""
        return self._reader(feed, START, fresh=True)

    async def attach(self, rid: str, after: TokenId) -> tuple[RequestRecord, TokenReader] | None:
        """Open a reader behind the token `after`. None when the request is unknown or expired.

        Raises StoreUnavailable; Fenced when this frontend's lease has expired.
        """
        feed = self.feed(rid)
        reader = self._reader(feed, after, fresh=False)
        try:
            async with feed.attach_lock:
                record = await self._store.attach(rid, self._state.id_for(rid), feed.http_readers)
        except BaseException as failure:
            feed.pin()  # a reader that is opened meanwhile shares the feed, and is counted by the same report
            self.close(reader)
            if isinstance(failure, Fenced):
                self._state.renew()
                feed.unpin()
            else:
                # Redis may have executed it all the same, and counting a reader that does not exist would keep the
                # request alive.
                self._spawn(self._report_closed(feed), "detach")
            raise
        if record is None:
            self.close(reader)
            return None
        feed.note_lost_start(record.lost_start)
        return record, reader

    async def detach(self, reader: TokenReader, status: ConnectionStatus, *, admitting: bool) -> Disconnection | None:
        """Close a reader and report it to Redis. `admitting`: its client is the one that brought the request.

        Returns None when there was nothing to report, or when Redis did not answer: see `ReaderReports.closed`.
        """
        feed = reader.feed
        feed.pin()  # a reader that is opened meanwhile shares the feed, and is counted after this report
        self.close(reader)
        try:
            if feed.record is None or (admitting and status is _UNEXPECTED):
                return await self.reports.closed(feed, status, admitting=admitting)
            if admitting:
                # How the response to an ended request was closed. Nothing depends on it, so it is not written.
                message = orjson.dumps({"type": "connection", "status": status})
                await self._store.commands.execute("PUBLISH", self._store.keys.channel(feed.rid), message)
            return None  # the readers of an ended request are not counted
        except StoreUnavailable as failure:
            log.warning("the end of a connection of %s could not be written: %s", feed.rid, failure)
            return None
        finally:
            feed.unpin()

    async def _report_closed(self, feed: RequestFeed) -> None:
        """Report the loss of a reader that failed to attach, and that Redis may count."""
        try:
            await self.reports.closed(feed, _UNEXPECTED, admitting=False)
        finally:
            feed.unpin()

    def close(self, reader: TokenReader) -> None:
        """Close a reader without reporting it."""
        reader.close()
        self._open -= 1
        if self._open == 0:
            self._all_closed.set()

    async def wait_until_quiet(self, timeout_secs: float) -> None:
        """Wait until no client waits for an answer here, for at most `timeout_secs`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_secs):
                await self._all_closed.wait()

    def mark_stale(self, shard: int) -> None:
        """Let every reader of the shard check its request's record: pushes or data of the shard were lost."""
        for feed in list(self.feeds.values()):
            if self._store.keys.shard_of(feed.rid) == shard:
                for reader in feed.readers:
                    reader.mark_stale()

    def report_again(self, shard: int) -> None:
        """Tell the shard again who reads its requests here and who has left: it may have lost that."""
        self._spawn(self.reports.again(shard), "readers")

    def end_shard(self, shard: int, error_type: str, message: str) -> None:
        """End every reader of a shard with an error now: the lease there has expired."""
        self.reports.forget_shard(shard)
        for feed in list(self.feeds.values()):
            if self._store.keys.shard_of(feed.rid) == shard:
                feed.abort(error_type, message)

    def end_all(self, error_type: str, message: str) -> None:
        """End every reader with an error now."""
        for feed in list(self.feeds.values()):
            feed.abort(error_type, message)

    def _reader(self, feed: RequestFeed, after: TokenId, *, fresh: bool) -> TokenReader:
        self._open += 1
        self._all_closed.clear()
        return TokenReader(self._store, feed, self.record_polls, self._limits, after=after, fresh=fresh)

    def _close_feed(self, feed: RequestFeed) -> None:
        if self.feeds.get(feed.rid) is feed:
            del self.feeds[feed.rid]
        if feed.record is not None:
            self.reports.forget(feed.rid)
