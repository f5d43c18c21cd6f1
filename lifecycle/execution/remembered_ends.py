"""Remember the last ends that a worker has reported, to report them again when Redis has lost them.

A failover or a restart from a snapshot may lose an end that was confirmed. Redis then shows the request as running, and
must not let it run again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from lifecycle.execution.outcomes import STREAM_LOST
from lifecycle.store.results import Append, Ended, Outcome
from lifecycle.store.transitions import Store

_REMEMBERED = 1000
_REMAINDER_BYTES = 16 * 1024  # of the last tokens of one request that are kept


class Report(NamedTuple):
    """The end of an attempt, as Redis has answered and as it was reported: see Store.finish."""

    ended: Ended
    attempt: int
    outcome: Outcome
    last: int
    remainder: Append | None


class RememberedEnds:
    """Hold the last reports of one worker, by request id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reports: OrderedDict[str, Report] = OrderedDict()

    def remember(self, rid: str, report: Report) -> None:
        """Remember a report that Redis has confirmed. Of more than 1,000 the oldest is forgotten."""
        if report.remainder is not None and len(report.remainder.tokens) > _REMAINDER_BYTES:
            report = report._replace(remainder=None)  # repeated, it can only tell that tokens are lost
        self._reports[rid] = report
        if len(self._reports) > _REMEMBERED:
            self._reports.popitem(last=False)

    async def report_again(self, rid: str, worker: str, attempt: int) -> Ended | None:
        """Report the end of this attempt again; None when it is not remembered. Raises StoreUnavailable.

        The request fails with `state_lost` when Redis has lost more of its tokens than the last ones.
        """
        report = self._reports.get(rid)
        if report is None or report.attempt != attempt:
            return None
        outcome, record = report.outcome, report.ended.record
        if record is not None and record.status.terminal and record.status != outcome.status:
            # It had been cancelled or failed by another when it was reported.
            status: Any = record.status.value
            outcome = outcome._replace(
                status=status, error_type=record.error_type, message=record.error_message or "", detail=None
            )
        ended = await self._store.finish(rid, worker, attempt, outcome, report.last, remainder=report.remainder)
        if ended.what == "incomplete":
            ended = await self._store.finish(rid, worker, attempt, STREAM_LOST, ended.last)
        return ended
