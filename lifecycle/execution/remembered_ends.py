"""Remember the last ends that a worker has reported, to report them again when Redis has lost them.

A failover or a restart from a snapshot may lose an end that was confirmed. Redis then shows the request as running, and
must not let it run again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from lifecycle.execution.outcomes import END_LOST, STREAM_LOST
from lifecycle.store.results import Ended, Outcome, Start, StartedAttempt
from lifecycle.store.transitions import Store
from lifecycle.tokens.writer import Reported
from lifecycle.types import RequestRecord

_REMEMBERED = 1000
_REMAINDER_BYTES = 16 * 1024  # of the last tokens of one request that are kept


class Report(NamedTuple):
    """The end of an attempt, as Redis has answered and as it was reported."""

    ended: Ended
    reported: Reported

    @property
    def outcome(self) -> Outcome:
        """Return how the request has ended: as reported, unless it had been cancelled or failed by another before."""
        outcome, record = self.reported.outcome, self.ended.record
        if record is None or not record.status.terminal or record.status == outcome.status:
            return outcome
        status: Any = record.status.value
        return outcome._replace(
            status=status, error_type=record.error_type, message=record.error_message or "", detail=None
        )


class RememberedEnds:
    """Hold the last reports of one worker, by request id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reports: OrderedDict[str, Report] = OrderedDict()

    def remember(self, rid: str, report: Report) -> None:
        """Remember a report that Redis has confirmed. Of more than 1,000 the oldest is forgotten."""
        remainder = report.reported.remainder
        if remainder is not None and len(remainder.tokens) > _REMAINDER_BYTES:  # it can only tell that tokens are lost
            report = report._replace(reported=report.reported._replace(remainder=None))
        self._reports[rid] = report
        if len(self._reports) > _REMEMBERED:
            self._reports.popitem(last=False)

    def of_shard(self, shard: int) -> Sequence[str]:
        """Return the ids of the requests of one shard whose ends are remembered."""
        return [rid for rid in self._reports if self._store.keys.shard_of(rid) == shard]

    async def report_again(self, rid: str, record: RequestRecord | None) -> Ended | None:
        """Report the end of the attempt that the record shows again; None when it is not remembered.

        It counts also under an id whose lease has expired, until that is cleaned up. The request fails with
        `state_lost` when Redis has lost more of its tokens than the last ones. Raises StoreUnavailable.
        """
        report = self._reports.get(rid)
        started = report.reported.started if report is not None else None
        if report is None or record is None or started != StartedAttempt(record.attempt, record.start_nonce):
            return None
        return await self._finish(rid, record.worker or "", report, started, report.reported.length)

    async def end_restarted(self, rid: str, worker: str, start: Start) -> Ended | None:
        """End a request that this worker has ended before and was given to start again; None for any other.

        Redis has lost its end and its start, and nobody may run it again. Raises StoreUnavailable.
        """
        report = self._reports.get(rid)
        if report is None:
            return None
        started = StartedAttempt(start.attempt, start.nonce)
        if report.reported.started == started or report.reported.started.attempt < start.attempt:
            return None
        return await self._finish(rid, worker, report, started, start.length)

    async def check(self, rid: str) -> None:
        """Look whether Redis has lost the end of this request, and end it again if it has. Raises StoreUnavailable.

        If Redis has lost its admission too, another request may get its id, and must not continue the answer of this.
        """
        record, report = await self._store.read(rid), self._reports.get(rid)
        if report is None or (record is not None and record.status.terminal):
            return
        if await self.report_again(rid, record) is None:
            outcome = report.outcome
            end = outcome if outcome.status == "cancelled" else END_LOST
            await self._store.report_lost_start(rid, report.reported.started, end)

    async def _finish(
        self, rid: str, worker: str, report: Report, started: StartedAttempt, length: int | None
    ) -> Ended:
        attempt, nonce = started
        last, remainder = report.reported.last, report.reported.remainder
        ended = await self._store.finish(
            rid, worker, attempt, report.outcome, last, remainder=remainder, nonce=nonce, length=length
        )
        if ended.what == "incomplete":
            ended = await self._store.finish(rid, worker, attempt, STREAM_LOST, ended.last, nonce=nonce)
        return ended
