"""Numbers over time, from counters that are only ever read now and then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lifecycle.queries.cluster import ClusterSnapshot
from lifecycle.types import Replica, Role

_SAME_BEAT_SECS = 0.05  # a heartbeat's time is read off a lease in milliseconds
_LONGEST_GAP_SECS = 30.0  # further apart, two readings say nothing about now


class Point(NamedTuple):
    """The cluster at one moment; the last four are how many since the point before."""

    at: float
    queued: int
    running: int
    tokens_per_sec: float
    completed: int
    failed: int
    cancelled: int
    disconnects: int


class _Beat(NamedTuple):
    at: float
    tokens: int
    disconnects: int
    tokens_per_sec: float


class Rates:
    """Feed it every snapshot, in order.

    Ends are counted in Redis. Tokens and disconnects each frontend counts itself and reports with its heartbeat, so
    those are as fresh as that, and what a frontend counted after its last heartbeat dies with it.
    """

    def __init__(self, lease_secs: float) -> None:
        self._lease_secs = lease_secs
        self._beats: dict[str, _Beat] = {}
        self._ends: tuple[int, int, int] | None = None
        self._at = float("-inf")

    def feed(self, snapshot: ClusterSnapshot) -> Point:
        now, total = snapshot.inflight.as_of, snapshot.inflight.total
        if now - self._at > _LONGEST_GAP_SECS:
            self._beats, self._ends = {}, None
        self._at = now
        ends = _ends(snapshot)
        completed, failed, cancelled = (max(0, n - o) for n, o in zip(ends, self._ends or ends, strict=True))
        self._ends = ends
        disconnects = self._hear(r for r in snapshot.replicas if r.role is Role.FRONTEND and r.counted)
        rate = sum(beat.tokens_per_sec for beat in self._beats.values())
        return Point(now, total.queued, total.running, round(rate, 1), completed, failed, cancelled, disconnects)

    def beat_at(self, replica: Replica, now: float) -> float:
        return now + replica.lease_expires_in_ms / 1000 - self._lease_secs

    def _hear(self, frontends: Iterable[Replica]) -> int:
        """Takes in what they report; returns how many disconnects are new."""
        heard: dict[str, _Beat] = {}
        disconnects = 0
        for replica in frontends:
            at = self.beat_at(replica, self._at)
            tokens, gone = replica.counted.get("output_tokens", 0), replica.counted.get("disconnects", 0)
            before = self._beats.get(replica.id)
            if before is None:
                heard[replica.id] = _Beat(at, tokens, gone, 0.0)
            elif at - before.at < _SAME_BEAT_SECS:
                heard[replica.id] = before
            else:
                rate = max(0, tokens - before.tokens) / (at - before.at)
                disconnects += max(0, gone - before.disconnects)
                heard[replica.id] = _Beat(at, tokens, gone, rate)
        self._beats = heard
        return disconnects


def _ends(snapshot: ClusterSnapshot) -> tuple[int, int, int]:
    completed = failed = cancelled = 0
    for (*_, status, error_type), number in snapshot.totals.items():
        if status == "success":
            completed += number
        elif error_type == "cancelled":
            cancelled += number
        else:
            failed += number
    return completed, failed, cancelled
