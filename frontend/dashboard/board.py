"""The board: what all viewers of this frontend look at, and one viewer's way of looking."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import orjson

from frontend.dashboard.picture import Picture
from frontend.dashboard.rates import Point, Rates
from frontend.dashboard.source import Source
from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.queries import browse, cluster
from lifecycle.store.results import Row
from lifecycle.store.transitions import Store
from lifecycle.types import Replica, RequestRecord

MAX_VIEWERS = 64
FINISHED_ROWS = 25
_HISTORY_POINTS = 300
_SAME_BEAT_SECS = 0.05  # a heartbeat's time is read off a lease in milliseconds
_GONE_SECS = 300.0  # how long a replica that is gone is shown

_ROW_FIELDS = (
    "id",
    "model",
    "endpoint",
    "request_type",
    "status",
    "frontend",
    "worker",
    "attempt",
    "created_at",
    "started_at",
    "first_token_at",
    "last_token_at",
    "output_tokens",
    "cancel_requested_at",
    "cancel_mode",
)
_FINISHED_FIELDS = (*_ROW_FIELDS, "finished_at", "error_type", "error_message", "finish_reason", "cancel_reason")
_MESSAGE_CHARS = 300  # the full record has the whole


class Selection(NamedTuple):
    """Which requests one viewer wants to see."""

    order: str
    status: str
    outcome: str
    words: tuple[str, ...]
    rows: int


class Board:
    """Asks Redis nothing while nobody looks, and the same for one viewer as for many."""

    def __init__(self, store: Store, frontend: Callable[[], str]) -> None:
        self._store = store
        self._frontend = frontend
        self._rates = Rates(store.settings.lease_secs)
        self._history: deque[Point] = deque(maxlen=_HISTORY_POINTS)
        self._seen: dict[str, dict[str, Any]] = {}  # the replicas' rows, also of those that are gone
        self.cluster = Source(self._take_cluster)
        self._listings: dict[Selection, tuple[Source, int]] = {}
        self._viewers = 0

    @property
    def full(self) -> bool:
        return self._viewers >= MAX_VIEWERS

    @contextmanager
    def listing(self, selection: Selection) -> Iterator[Source]:
        """Shared with whoever has selected the same, and forgotten once nobody has."""
        source, users = self._listings.get(selection) or (Source(lambda last: self._take_listing(selection, last)), 0)
        self._listings[selection] = (source, users + 1)
        self._viewers += 1
        try:
            yield source
        finally:
            self._viewers -= 1
            source, users = self._listings.pop(selection)
            if users > 1:
                self._listings[selection] = (source, users - 1)

    async def _take_cluster(self, last: Picture | None) -> Picture:
        snapshot = await cluster.snapshot(self._store)
        now = snapshot.inflight.as_of
        gone = await browse.recently_expired(self._store, now - _GONE_SECS)
        settings = self._store.settings
        if last is None or now - last.facts["as_of"] > settings.lease_secs:
            self._seen = {}  # nobody has looked for so long that it says nothing about how anybody ended
        point = self._rates.feed(snapshot)
        self._history.append(point)
        replicas = {r.id: self._living(r, now) for r in snapshot.replicas}
        replicas |= self._lost(replicas, gone, now)
        self._seen = replicas
        facts = {
            "as_of": now,
            "frontend": self._frontend(),
            "point": point,
            "oldest_created_at": snapshot.oldest_created_at,
            "heartbeat_secs": settings.heartbeat_secs,
            "lease_secs": settings.lease_secs,
        }
        version = last.version + 1 if last else 1
        return Picture(version, facts, {"replicas": replicas}, last.tables if last else {}, list(self._history))

    def _living(self, replica: Replica, now: float) -> dict[str, Any]:
        row = replica.to_json() | {"gone_at": None}
        del row["lease_expires_in_ms"]
        beat_at, before = self._rates.beat_at(replica, now), self._seen.get(replica.id, {}).get("beat_at")
        row["beat_at"] = before if before is not None and abs(beat_at - before) < _SAME_BEAT_SECS else round(beat_at, 3)
        return row

    def _lost(self, living: Mapping[str, Any], gone: Mapping[str, float], now: float) -> dict[str, dict[str, Any]]:
        """Those that are gone of late: `dead` when their lease ran out, `left` when they were buried before that, by
        themselves; `gone` when it is not known, because nobody was looking."""
        lost = {}
        for name in {*gone, *self._seen} - living.keys():
            row = self._seen.get(name) or {"id": name, "role": name.partition("-")[0], "models": []}
            at = gone.get(name) or row.get("gone_at") or now
            if now - at < _GONE_SECS:
                lost[name] = row | {"state": self._how_it_ended(row, gone.get(name)), "gone_at": at, "inflight": 0}
        return lost

    def _how_it_ended(self, row: Mapping[str, Any], buried_at: float | None) -> str:
        if "beat_at" not in row:
            return "gone"
        ran_out_at = row["beat_at"] + self._store.settings.lease_secs
        return "left" if buried_at is not None and buried_at < ran_out_at - _SAME_BEAT_SECS else "dead"

    async def _take_listing(self, selection: Selection, last: Picture | None) -> Picture:
        order, status, outcome, words, rows = selection
        inflight = browse.Query("active", "newest" if order == "newest" else "oldest", status, words, rows)
        finished = browse.Query("expiries", "newest", outcome, words, FINISHED_ROWS)
        active, ended = await asyncio.gather(*(browse.browse(self._store, query) for query in (inflight, finished)))
        tables = {
            "inflight": {r.record.id: _row(r, _ROW_FIELDS) for r in active.rows},
            "finished": {r.record.id: _row(r, _FINISHED_FIELDS) for r in ended.rows},
        }
        facts = {"listed_at": active.as_of, "more": active.more}
        return Picture(last.version + 1 if last else 1, facts, tables, last.tables if last else {})


def _row(row: Row, names: tuple[str, ...]) -> dict[str, Any]:
    record: RequestRecord = row.record
    shown = {name: getattr(record, name) for name in names} | {"readers": row.readers}
    for name in ("error_message", "cancel_reason"):
        if shown.get(name):
            shown[name] = shown[name][:_MESSAGE_CHARS]
    return shown


class Viewer:
    """One page that looks: `await next()` is the next event, at most one a period, and however slow the page is."""

    def __init__(self, board: Board, listing: Source) -> None:
        self._sources = {"cluster": board.cluster, "requests": listing}
        self._seen = dict.fromkeys(self._sources, 0)
        self._look_at = float("-inf")

    async def next(self) -> bytes:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._look_at - clock()))
        try:
            pictures = {name: await source.look() for name, source in self._sources.items()}
        except StoreError as failure:
            tasks.check_cancelled()
            return _event(b'{"trouble":' + orjson.dumps(failure.message) + b"}")
        finally:
            self._look_at = max(clock(), self._sources["cluster"].due_at)
        parts = [
            b'"%s":%s' % (name.encode(), picture.since(self._seen[name]))
            for name, picture in pictures.items()
            if picture.version != self._seen[name]
        ]
        self._seen = {name: picture.version for name, picture in pictures.items()}
        return _event(b"{" + b",".join(parts) + b"}")


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
