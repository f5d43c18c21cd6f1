"""List requests of the whole cluster for a table: a bounded number of rows from either end of an index.

A search examines a bounded number of requests, in small steps, so that Redis is never busy with it for long.
Every function raises StoreUnavailable.
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lifecycle.store.listings import ROWS_LIMIT, SCAN_LIMIT
from lifecycle.store.results import Row
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord

_SEARCH_LIMIT = 20_000  # requests that one search examines in each shard at most
_SHOWN_GONE = 20


@dataclass(slots=True, frozen=True)
class Query:
    """Select requests: of `active` those inflight, by age; of `expiries` those that have ended, by time of their end.

    Each of `words` (in lower case) must occur in the id, the model, the status, the frontend,
    the worker or the owner.
    """

    index: Literal["active", "expiries"]
    order: Literal["oldest", "newest"]
    status: str
    words: tuple[str, ...]
    limit: int

    @property
    def narrows(self) -> bool:
        """Return whether some requests of the index may not match."""
        return bool(self.status or self.words)


@dataclass(slots=True, frozen=True)
class Listing:
    """Hold the rows found at `as_of`, in Unix seconds by Redis's clock.

    `more`: further requests match, or may match because the search ended before the index did.
    """

    as_of: float
    rows: list[Row]
    more: bool


async def browse(store: Store, query: Query) -> Listing:
    """List the requests that match the query, over all shards in one order."""
    pages = await asyncio.gather(*(_browse_shard(store, shard, query) for shard in range(store.settings.shards)))
    newest = query.order == "newest"
    rows = list(heapq.merge(*(page.rows for page in pages), key=lambda row: _place(query, row.record), reverse=newest))
    as_of = min(page.as_of for page in pages)
    return Listing(as_of, rows[: query.limit], len(rows) > query.limit or any(page.more for page in pages))


async def oldest(store: Store, limit: int, word: str = "") -> Listing:
    """List the requests that have been inflight for longest; `word` must occur in each."""
    words = (word.lower(),) if word else ()
    return await browse(store, Query("active", "oldest", "", words, limit))


def _place(query: Query, record: RequestRecord) -> tuple[float, str]:
    at = record.created_at if query.index == "active" else record.finished_at or 0.0
    return at, record.id


async def _browse_shard(store: Store, shard: int, query: Query) -> Listing:
    found: dict[str, Row] = {}  # by id, because the index may shift between two steps
    offset, more = 0, True
    while True:
        missing = query.limit + 1 - len(found)
        step = SCAN_LIMIT if query.narrows else min(missing, ROWS_LIMIT)
        page = await store.browse(shard, query.index, query.order, offset, step, missing, query.status, query.words)
        found |= {row.record.id: row for row in page.rows}
        offset += page.scanned
        if page.scanned < step and len(page.rows) < min(missing, ROWS_LIMIT):
            more = False  # the index ends here
        if not more or len(found) > query.limit or offset >= _SEARCH_LIMIT:
            return Listing(page.now, list(found.values()), more)


class Gone(NamedTuple):
    """A replica that is gone since `at`, in Unix seconds. `left`: in order, with nothing left."""

    at: float
    left: bool


async def recently_gone(store: Store, since: float) -> dict[str, Gone]:
    """Return the replicas that left, and those that expired, after `since`: the last 20 of each, by id."""
    names = {"left_replicas": True, "expired_replicas": False}
    bounds = ("+inf", f"({since:.6f}", "WITHSCORES", "LIMIT", 0, _SHOWN_GONE)
    replies = await store.commands.execute_many(
        ("ZREVRANGEBYSCORE", store.keys.control + name, *bounds) for name in names
    )
    return {
        name.decode(): Gone(float(at), left)
        for left, flat in zip(names.values(), replies, strict=True)
        for name, at in zip(flat[::2], flat[1::2], strict=True)
    }
