"""Check that requests end with those that have started them, and with no others."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.audit.history import History
from tests.simulation.server.database import Database
from tests.simulation.server.values import Hash

_ENDED_BADLY = (b"cancelled", b"failed")
_TERMINAL = (b"completed", *_ENDED_BADLY)
# A parent is looked at once in a lease, by a sweep; then the child's worker is told, at the latest by its heartbeat.
_LATE_SECS = 9.0
_STEP_SECS = 30.0  # of the server's clock, by which sweeps know when a parent is looked at next


class Trees:
    """Follows parents and children. `clock` has the time of the history's windows."""

    def __init__(self, history: History, clock: Callable[[], float]) -> None:
        self._history = history
        self._clock = clock
        self._ended_at: dict[bytes, float] = {}  # when the bad end of a parent was first seen, by its key

    def look(self, database: Database, note: Callable[[str], None]) -> None:
        """Look at every request that was started by another."""
        records = {
            key.partition(b"}:request:")[2]: record
            for key, record in database.values.items()
            if b"}:request:" in key and isinstance(record, Hash)
        }
        for rid, record in records.items():
            if parent := record.get(b"parent"):
                self._check(rid, record, parent, records.get(parent, Hash()), note)

    def _check(self, rid: bytes, record: Hash, parent: bytes, of_parent: Hash, note: Callable[[str], None]) -> None:
        now, status = self._clock(), of_parent.get(b"status")
        if record.get(b"cancelled_by") == b"parent:" + parent and status == b"completed":
            stopped = of_parent.get(b"cancel_mode") == b"stop"
            if not stopped and not self._history.may_have_lost(0.0, now):
                note(f"{rid.decode()} was cancelled because of {parent.decode()}, which has completed")
        if status not in _ENDED_BADLY or of_parent.get(b"created_at") != record.get(b"parent_since"):
            self._ended_at.pop(rid, None)
            return
        ended_at = self._ended_at.setdefault(rid, now)
        if record.get(b"status") in _TERMINAL:
            return
        quiet_since = max([ended_at, *(window.ends_at for window in self._history.windows)])
        steps = any(window.what == "server clock" for window in self._history.windows)
        if now > quiet_since + _LATE_SECS + steps * _STEP_SECS:
            note(f"{rid.decode()} goes on, and its parent {parent.decode()} has {of_parent[b'status'].decode()}")
