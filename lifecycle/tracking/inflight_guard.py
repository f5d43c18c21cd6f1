"""Count a request in once and out once, however it ends.

A guard starts out marked as cancelled, so that a code path that forgets to mark it is not counted as a success;
`mark` and `mark_error` change that before it is released. Redis holds the cluster-wide counts; this is the share of
one process in the metrics.
"""

from __future__ import annotations

from lifecycle.telemetry.metrics import RequestMetrics
from lifecycle.types import ErrorType, RequestRecord, Status

# Global names: looking a member up in its enum is slow.
_NONE, _CANCELLED, _COMPLETED = ErrorType.NONE, ErrorType.CANCELLED, Status.COMPLETED


class InflightGuard:
    """Hold a place in the gauges from its construction until it is released or dropped."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics
        self._error_type = _CANCELLED
        self._released = False
        self._queued = False
        metrics.inflight.value += 1

    def mark_queued(self, queued: bool) -> None:
        """Count the request as queued or as running. Only the gauge of queued requests differs."""
        if queued != self._queued and not self._released:
            self._queued = queued
            self._metrics.queued.value += 1 if queued else -1

    def mark_error(self, error_type: ErrorType) -> None:
        """Count this error when released."""
        self._error_type = error_type

    def mark(self, record: RequestRecord) -> None:
        """Count what the terminal record says when released."""
        self._error_type = _NONE if record.status is _COMPLETED else ErrorType(record.error_type)

    def release(self) -> None:
        """Leave the gauges and count the outcome. A second call changes nothing."""
        if self._released:
            return
        self.mark_queued(False)
        self._released = True
        self._metrics.inflight.value -= 1
        self._metrics.count(self._error_type)

    def drop(self) -> None:
        """Leave the gauges without counting an outcome: the request continues under another frontend."""
        if not self._released:
            self.mark_queued(False)
            self._released = True
            self._metrics.inflight.value -= 1
