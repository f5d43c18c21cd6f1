"""Count the calls that a frontend refuses, and log them without letting their senders fill the log."""

from __future__ import annotations

import logging
import time

from lifecycle.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_LOG_SECS = 1.0
_MAX_CHARS = 128


class Refusals:
    """Count every refused call, and log at most one line a second for each reason."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._silent_until: dict[str, float] = {}  # by reason, of which there is a closed list
        self._unlogged: dict[str, int] = {}

    def count(self, status: int, reason: str, method: str, path: str) -> None:
        """Count one refused call. `method` and `path` are '' if they are not known."""
        self._metrics.refused_calls.labels(str(status), reason).inc()
        now = time.monotonic()
        if now < self._silent_until.get(reason, 0.0):
            self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
            return
        self._silent_until[reason] = now + _LOG_SECS
        more = self._unlogged.pop(reason, 0)
        call = f"{method} {path[:_MAX_CHARS]!r}" if method else "a call"
        log.info(
            "refused %s with %d: %s%s", call, status, reason, f" ({more} more since the last line)" if more else ""
        )
