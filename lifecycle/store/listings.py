"""Reads many requests at once: pages of a listing, rows of the dashboard's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from lifecycle.store.results import Page, Row, Rows, Steps, record_of
from lifecycle.store.runner import ScriptRunner, as_text

# What one call reads at most, so that Redis is busy with it for at most 2 ms: examining a request takes 5 microseconds,
# reading it whole 20.
SCAN_LIMIT = 150
ROWS_LIMIT = 40


class Filter(NamedTuple):
    """Select requests that match every field; an empty field matches any."""

    status: str = ""
    model: str = ""
    endpoint: str = ""
    frontend: str = ""
    worker: str = ""
    owner: str = ""


class Listings(ScriptRunner):
    """The part of the Store that lists requests.

    Each call reads one shard atomically; pages of several calls and shards are from different moments. A call examines
    a bounded number of requests, so that Redis is never busy with it for long, and may return fewer than there are.
    Nothing is written, so every call may be repeated.
    """

    async def read_timeline(self, rid: str, *, retry_for_secs: float = 0.0) -> Steps | None:
        """Return a request's record with the steps that the record does not tell, or None when it is unknown.

        Raises StoreUnavailable.
        """
        reply = await self._in_shard("timeline", rid, retry_for_secs)
        record = record_of(reply[0]) if reply else None
        if record is None:
            return None
        return Steps(record, [orjson.loads(line) for line in as_text(reply[1]).splitlines()], int(reply[2]))

    async def list_page(
        self, shard: int, matching: Filter, *, active: bool, upper: str, before: str, limit: int
    ) -> Page:
        """Return up to `limit` requests of one shard that match, newest first.

        `active` restricts the page to requests that have not ended. `upper` is the `created_at` to begin at, `+inf` for
        the newest, and `before` the request id to continue behind at exactly that time, empty for none. The page says
        where the next one begins. Raises StoreUnavailable.
        """
        reply = await self._call(
            "list",
            self._prefixes[shard],
            "active" if active else "created",
            upper,
            before,
            *matching,
            min(limit, ROWS_LIMIT),
            SCAN_LIMIT,
        )
        records = [r for r in map(record_of, reply[3:]) if r is not None]
        return Page(records, bool(reply[0]), as_text(reply[1]), as_text(reply[2]))

    async def browse(
        self,
        shard: int,
        index: str,
        order: str,
        offset: int,
        scan_limit: int,
        limit: int,
        status: str,
        words: Sequence[str],
    ) -> Rows:
        """Return up to `limit` rows from one end of an index of one shard.

        `index` is `active` (by created_at) or `expiries` (by finished_at), `order` is `oldest` or `newest`. The first
        `offset` members are skipped and the next `scan_limit` examined. `status` may be empty for any. Each of `words`,
        in lower case, must occur in the id, model, status, frontend or worker. Fewer may be examined and returned than
        asked for: at most 150 and 40. Raises StoreUnavailable.
        """
        scan_limit, limit = min(scan_limit, SCAN_LIMIT), min(limit, ROWS_LIMIT)
        reply = await self._call(
            "browse", self._prefixes[shard], index, order, offset, scan_limit, limit, status, orjson.dumps(list(words))
        )
        rows = [(record_of(text), int(readers)) for text, readers in reply[2:]]
        return Rows(
            float(reply[0]), int(reply[1]), [Row(record, readers) for record, readers in rows if record is not None]
        )
