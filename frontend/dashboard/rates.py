"""Compute rates from counters that are read at irregular intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lifecycle.queries.cluster import ClusterSnapshot
from lifecycle.records import Replica
from lifecycle.types import Role

SAME_HEARTBEAT_SECS = 0.05  # a heartbeat's time is computed from a lease in milliseconds
_LONGEST_GAP_SECS = 30.0  # two snapshots further apart give no current rate


class Point(NamedTuple):
    """Describe the cluster at one moment. The last four are counts since the previous point."""

    at: float
    queued: int
    running: int
    tokens_per_sec: float
    completed: int
    failed: int
    cancelled: int
    disconnects: int


class _Report(NamedTuple):
    """Hold the counters of one frontend at its heartbeat."""

    at: float
    tokens: int
    disconnects: int
    tokens_per_sec: float


class Rates:
    """Compute a point from each snapshot of the cluster.

    Redis counts the requests that ended. Each frontend counts its tokens and disconnects and reports them with its
    heartbeat: these are as old as the heartbeat, and what a frontend counted after its last one is lost with it.
    """

    def __init__(self, lease_secs: float) -> None:
        self._lease_secs = lease_secs
        self._reports: dict[str, _Report] = {}
        self._ends: tuple[int, int, int] | None = None
        self._at = float("-inf")

    def add(self, snapshot: ClusterSnapshot) -> Point:
        """Return the point of this snapshot. Snapshots must be added in the order of their times."""
        now, total = snapshot.inflight.as_of, snapshot.inflight.total
        if now - self._at > _LONGEST_GAP_SECS:
            self._reports, self._ends = {}, None
        self._at = now
        ends = _ends(snapshot)
        completed, failed, cancelled = (max(0, n - o) for n, o in zip(ends, self._ends or ends, strict=True))
        self._ends = ends
        disconnects = self._add_reports(r for r in snapshot.replicas if r.role is Role.FRONTEND and r.counted)
        rate = sum(report.tokens_per_sec for report in self._reports.values())
        return Point(now, total.queued, total.running, round(rate, 1), completed, failed, cancelled, disconnects)

    def heartbeat_at(self, replica: Replica, now: float) -> float:
        """Return the time of the replica's last heartbeat, by Redis's clock, computed from the end of its lease."""
        return now + replica.lease_expires_in_ms / 1000 - self._lease_secs

    def _add_reports(self, frontends: Iterable[Replica]) -> int:
        """Keep the counters of each frontend. Return how many disconnects are new."""
        reports: dict[str, _Report] = {}
        disconnects = 0
        for replica in frontends:
            at = self.heartbeat_at(replica, self._at)
            tokens, lost = replica.counted.get("output_tokens", 0), replica.counted.get("disconnects", 0)
            before = self._reports.get(replica.id)
            if before is None:
                reports[replica.id] = _Report(at, tokens, lost, 0.0)
            elif at - before.at < SAME_HEARTBEAT_SECS:
                reports[replica.id] = before
            else:
                rate = max(0, tokens - before.tokens) / (at - before.at)
                disconnects += max(0, lost - before.disconnects)
                reports[replica.id] = _Report(at, tokens, lost, rate)
        self._reports = reports
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
