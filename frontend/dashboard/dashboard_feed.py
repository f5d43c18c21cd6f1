"""Provide the dashboard's viewers with events: snapshots that all share, and one position for each viewer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from heapq import nlargest
from typing import Any, NamedTuple

import orjson

from frontend.dashboard.cached_snapshot import CachedSnapshot
from frontend.dashboard.rates import SAME_HEARTBEAT_SECS, Point, Rates
from frontend.dashboard.snapshot import Snapshot
from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.fastapi.errors import summary_of
from lifecycle.queries import browse, cluster, queues
from lifecycle.records import Replica
from lifecycle.store.results import Row
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord

MAX_VIEWERS = 64
FINISHED_ROWS = 25
QUEUE_ROWS = 200
_HISTORY_POINTS = 300
_GONE_SECS = 300.0  # how long a replica is shown after it is gone

_ROW_FIELDS = (
    "id",
    "model",
    "endpoint",
    "request_type",
    "status",
    "frontend",
    "worker",
    "owner",
    "attempt",
    "created_at",
    "started_at",
    "first_token_at",
    "last_token_at",
    "output_tokens",
    "cancel_requested_at",
    "cancel_mode",
)
_FINISHED_FIELDS = (
    *_ROW_FIELDS,
    "finished_at",
    "error_type",
    "error_message",
    "finish_reason",
    "cancel_reason",
    "cancelled_by",
)
_MESSAGE_CHARS = 300  # in a table's row; the full record has the whole message


class ListingQuery(NamedTuple):
    """Select the requests that one viewer wants to see."""

    order: str  # of inflight requests, by age: oldest or newest first
    status: str  # of inflight requests; '' for any
    outcome: str  # of finished requests; '' for any
    words: tuple[str, ...]  # in lower case; all must be found
    rows: int  # of inflight requests


class DashboardFeed:
    """Take the snapshots that the viewers of this frontend share.

    Redis is asked only while there are viewers, and as often for one as for many.
    """

    def __init__(self, store: Store, frontend: Callable[[], str]) -> None:
        self._store = store
        self._frontend = frontend
        self._rates = Rates(store.settings.lease_secs)
        self._history: deque[Point] = deque(maxlen=_HISTORY_POINTS)
        self._replicas: dict[str, dict[str, Any]] = {}  # the rows of the last snapshot, with those that are gone
        self.cluster = CachedSnapshot(self._take_cluster)
        self._listings: dict[ListingQuery, tuple[CachedSnapshot, int]] = {}  # with the number of viewers
        self._viewers = 0

    @property
    def is_full(self) -> bool:
        """Return whether MAX_VIEWERS has been reached."""
        return self._viewers >= MAX_VIEWERS

    @contextmanager
    def listing(self, query: ListingQuery) -> Iterator[CachedSnapshot]:
        """Share the listing with all viewers that have the same query. It is dropped when the last one leaves."""
        listing, viewers = self._listings.get(query) or (
            CachedSnapshot(lambda last: self._take_listing(query, last)),
            0,
        )
        self._listings[query] = (listing, viewers + 1)
        self._viewers += 1
        try:
            yield listing
        finally:
            self._viewers -= 1
            listing, viewers = self._listings.pop(query)
            if viewers > 1:
                self._listings[query] = (listing, viewers - 1)

    async def _take_cluster(self, last: Snapshot | None) -> Snapshot:
        snapshot = await cluster.snapshot(self._store)
        now = snapshot.inflight.as_of
        gone = await browse.recently_gone(self._store, now - _GONE_SECS)
        settings = self._store.settings
        if last is None or now - last.facts["as_of"] > settings.lease_secs:
            self._replicas = {}  # too old to tell when a replica ended since then
        point = self._rates.add(snapshot)
        self._history.append(point)
        replicas = {r.id: self._live_row(r, now) for r in snapshot.replicas}
        replicas |= self._gone_rows(replicas, gone, now)
        self._replicas = replicas
        facts = {
            "as_of": now,
            "frontend": self._frontend(),
            "point": point,
            "oldest_created_at": snapshot.oldest_created_at,
            "heartbeat_secs": settings.heartbeat_secs,
            "lease_secs": settings.lease_secs,
        }
        version = last.version + 1 if last else 1
        tables = {"replicas": replicas, "queue": await self._queue_rows()}
        return Snapshot(version, facts, tables, last.tables if last else {}, list(self._history))

    async def _queue_rows(self) -> dict[str, dict[str, Any]]:
        """Return a row for each owner that waits for a model, those that wait for longest. Both names are its id."""
        rows: list[dict[str, Any]] = [
            {"id": f"{queue.model} {owner.owner}", "model": queue.model, "drain_per_sec": queue.drain_per_sec}
            | asdict(owner)
            for queue in await queues.read_queues(self._store)
            for owner in queue.owners
        ]
        return {row["id"]: row for row in nlargest(QUEUE_ROWS, rows, key=lambda row: row["oldest_secs"])}

    def _live_row(self, replica: Replica, now: float) -> dict[str, Any]:
        row = replica.to_json() | {"gone_at": None, "error": replica.error and replica.error[:_MESSAGE_CHARS]}
        del row["lease_expires_in_ms"]
        at, before = self._rates.heartbeat_at(replica, now), self._replicas.get(replica.id, {}).get("heartbeat_at")
        row["heartbeat_at"] = before if before is not None and abs(at - before) < SAME_HEARTBEAT_SECS else round(at, 3)
        return row

    def _gone_rows(
        self, living: Mapping[str, Any], gone: Mapping[str, browse.Gone], now: float
    ) -> dict[str, dict[str, Any]]:
        """Return the rows of the replicas that are gone since less than `_GONE_SECS`.

        Their state is `left` when the replica left in order, and `dead` when it ended without that.
        """
        rows = {}
        for name in {*gone, *self._replicas} - living.keys():
            row = self._replicas.get(name) or {"id": name, "role": name.partition("-")[0], "models": []}
            end = gone.get(name) or browse.Gone(row.get("gone_at") or now, row.get("state") == "left")
            if now - end.at < _GONE_SECS:
                rows[name] = row | {"state": "left" if end.left else "dead", "gone_at": end.at, "inflight": 0}
        return rows

    async def _take_listing(self, query: ListingQuery, last: Snapshot | None) -> Snapshot:
        order, status, outcome, words, rows = query
        inflight = browse.Query("active", "newest" if order == "newest" else "oldest", status, words, rows)
        finished = browse.Query("expiries", "newest", outcome, words, FINISHED_ROWS)
        active, ended = await asyncio.gather(*(browse.browse(self._store, query) for query in (inflight, finished)))
        tables = {
            "inflight": {r.record.id: _row(r, _ROW_FIELDS) for r in active.rows},
            "finished": {r.record.id: _row(r, _FINISHED_FIELDS) for r in ended.rows},
        }
        facts = {"listed_at": active.as_of, "more": active.more}
        return Snapshot(last.version + 1 if last else 1, facts, tables, last.tables if last else {})


def _row(row: Row, names: tuple[str, ...]) -> dict[str, Any]:
    record: RequestRecord = row.record
    shown = {name: getattr(record, name) for name in names} | {"readers": row.readers}
    for name in ("error_message", "cancel_reason"):
        if shown.get(name):
            shown[name] = shown[name][:_MESSAGE_CHARS]
    return shown


class Viewer:
    """Produce the events of one open dashboard: at most one a period, and none while the last one is being sent."""

    def __init__(self, dashboard_feed: DashboardFeed, listing: CachedSnapshot) -> None:
        self._parts = {"cluster": dashboard_feed.cluster, "requests": listing}
        self._seen = dict.fromkeys(self._parts, 0)  # versions
        self._next_at = float("-inf")

    async def next(self) -> bytes:
        """Wait until a new snapshot is due and return the next server-sent event.

        While Redis is unavailable the event is `{"trouble": message}`.
        """
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._next_at - clock()))
        try:
            snapshots = {name: await part.get() for name, part in self._parts.items()}
        except StoreError as failure:
            tasks.check_cancelled()
            return _event(b'{"trouble":' + orjson.dumps(summary_of(failure)) + b"}")
        finally:
            self._next_at = max(clock(), self._parts["cluster"].due_at)
        parts = [
            b'"%s":%s' % (name.encode(), snapshot.since(self._seen[name]))
            for name, snapshot in snapshots.items()
            if snapshot.version != self._seen[name]
        ]
        self._seen = {name: snapshot.version for name, snapshot in snapshots.items()}
        return _event(b"{" + b",".join(parts) + b"}")


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
