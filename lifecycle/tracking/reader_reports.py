"""Tell Redis how many readers each request has at one frontend, and that they have left.

A report that is lost would let an engine run for nobody. So it is repeated while this frontend holds its lease; after
that the shard judges what this frontend held. What Redis may have lost of it is told again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreUnavailable
from lifecycle.store.results import Disconnection
from lifecycle.store.transitions import Store
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.frontend_state import FrontendState

_REMEMBERED = 10_000
_OVER = ("terminal", "unknown")  # what becomes of a request whose readers need not be known any more
_HEARTBEATS = 2  # in which every frontend has found that Redis has lost data


class _Closed(NamedTuple):
    status: ConnectionStatus
    admitting: bool


class ReaderReports:
    """Report the readers of one frontend. Counts are absolute and in order, so that a repetition changes nothing."""

    def __init__(self, store: Store, state: FrontendState, feeds: Mapping[str, RequestFeed]) -> None:
        """`feeds` are those of the requests that are read or owned here, by id."""
        self._store = store
        self._state = state
        self._feeds = feeds
        # The last connection that has ended here of each request that may go on, the latest last.
        self._closed: OrderedDict[str, _Closed] = OrderedDict()

    async def closed(self, feed: RequestFeed, status: ConnectionStatus, *, admitting: bool) -> Disconnection:
        """Tell Redis how many readers the request has here after one was closed. `admitting`: the first client's.

        Repeated until Redis answers. Raise StoreUnavailable when it has not answered for a lease and the lease here has
        expired meanwhile, or this frontend drains or has left.
        """
        rid, own, closed = feed.rid, self._state.id_for(feed.rid), _Closed(status, admitting)
        while True:
            try:
                async with feed.attach_lock:
                    disconnection = await self._tell(rid, own, feed.http_readers, closed)
                break
            except StoreUnavailable:
                state = self._state
                if state.draining or state.has_left or state.id_for(rid) != own:
                    raise
            await asyncio.sleep(self._store.settings.heartbeat_secs)
        if disconnection.what not in _OVER:
            self._closed[rid] = closed
            self._closed.move_to_end(rid)
            if len(self._closed) > _REMEMBERED:
                self._closed.popitem(last=False)
        return disconnection

    async def _tell(self, rid: str, own: str, readers: int, closed: _Closed) -> Disconnection:
        """Tell Redis how many readers are left, as the frontend `own`, and forget a request that is over."""
        status, admitting = closed
        disconnection = await self._store.disconnect(
            rid, own, readers, status.value, admitting=admitting, retry_for_secs=self._store.settings.lease_secs
        )
        if disconnection.what in _OVER:
            self.forget(rid)
        return disconnection

    def forget(self, rid: str) -> None:
        """Forget a request that has ended."""
        self._closed.pop(rid, None)

    def forget_shard(self, shard: int) -> None:
        """Forget what was reported to a shard in which the lease has expired: it judges that by itself."""
        for rid in self._closed_in(shard):
            del self._closed[rid]

    def _closed_in(self, shard: int) -> list[str]:
        return [rid for rid in self._closed if self._store.keys.shard_of(rid) == shard]

    async def again(self, shard: int) -> None:
        """Tell a shard that may have lost data who reads its requests here, and then who has left.

        In between, other frontends say who reads there: what they read must not end. Raises StoreUnavailable.
        """
        feeds = [feed for feed in self._feeds.values() if feed.http_readers and feed.end is None]
        await tasks.in_batches(
            self._attached_again, [feed for feed in feeds if self._store.keys.shard_of(feed.rid) == shard]
        )
        if self._closed_in(shard):
            await asyncio.sleep(_HEARTBEATS * self._store.settings.heartbeat_secs)
            await tasks.in_batches(self._closed_again, self._closed_in(shard))

    async def _attached_again(self, feed: RequestFeed) -> None:
        async with feed.attach_lock:
            if not feed.http_readers:
                return
            own, retry_for_secs = self._state.id_for(feed.rid), self._store.settings.lease_secs
            with suppress(Fenced):  # its readers end
                await self._store.attach(feed.rid, own, feed.http_readers, retry_for_secs=retry_for_secs)

    async def _closed_again(self, rid: str) -> None:
        closed, feed = self._closed.get(rid), self._feeds.get(rid)
        if closed is not None and (feed is None or not feed.http_readers):
            await self._tell(rid, self._state.id_for(rid), 0, closed)
