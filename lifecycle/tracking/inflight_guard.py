"""The inflight guard: counts a request in once and out once, whatever happens in between.

It starts out marked as cancelled, so that a path that forgets to mark it is not counted a success; `mark_ok` and
`mark_error` say otherwise before it is released. The cluster-wide counts are Redis's; this is the process's share in
the metrics.
"""

from __future__ import annotations

from lifecycle.telemetry.metrics import Metrics
from lifecycle.types import ErrorType, Labels, RequestRecord, Status


class InflightGuard:
    """Around a request's life in this process. Releases exactly once."""

    def __init__(self, metrics: Metrics, labels: Labels) -> None:
        self._metrics = metrics
        self._labels = labels
        self._error_type = ErrorType.CANCELLED
        self._released = False
        self._queued = False
        metrics.inflight.labels(*labels).inc()

    def mark_queued(self, queued: bool) -> None:
        """Move between waiting and running; only the gauge of queued requests knows the difference."""
        if queued != self._queued and not self._released:
            self._queued = queued
            self._metrics.queued.labels(self._labels.model).inc(1 if queued else -1)

    def mark_ok(self) -> None:
        self._error_type = ErrorType.NONE

    def mark_error(self, error_type: ErrorType) -> None:
        self._error_type = error_type

    def mark(self, record: RequestRecord) -> None:
        """As the terminal record says."""
        if record.status is Status.COMPLETED:
            self.mark_ok()
        else:
            self.mark_error(ErrorType(record.error_type))

    def release(self) -> None:
        """Counts the outcome; a second call changes nothing."""
        if self._released:
            return
        self.mark_queued(False)
        self._released = True
        self._metrics.inflight.labels(*self._labels).dec()
        self._metrics.count_request(self._labels, self._error_type)

    def drop(self) -> None:
        """Leave without counting an outcome: the request goes on elsewhere."""
        if not self._released:
            self.mark_queued(False)
            self._released = True
            self._metrics.inflight.labels(*self._labels).dec()
