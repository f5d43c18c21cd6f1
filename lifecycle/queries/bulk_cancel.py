"""Cancelling by what requests have in common: all of a model, all of a worker, all that are older than ten minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lifecycle.queries import cluster
from lifecycle.store.scripts import Store
from lifecycle.types import CancelMode, RequestRecord, Status

STATUSES = (cluster.INFLIGHT, Status.QUEUED, Status.RUNNING)
PAGE_MAX = 1000
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Selection:
    """Requests inflight that match every given field; `older_than_secs` is since their admission, by Redis's clock."""

    filter: cluster.Filter
    older_than_secs: float | None = None

    @property
    def empty(self) -> bool:
        """Nothing is asked for, so everything would match: never what is meant. A status says it on purpose."""
        return not any(self.filter) and self.older_than_secs is None


@dataclass(slots=True)
class Cancelled:
    """A page of what a selection matched, and how it stands now. In a dry run nothing is requested."""

    dry_run: bool
    matched: int = 0
    records: list[RequestRecord] = field(default_factory=list)
    has_more: bool = False

    @property
    def requested(self) -> int:
        """What has a cancel on record now; what had ended by itself before it came has none."""
        return 0 if self.dry_run else sum(record.cancel_requested_at is not None for record in self.records)

    def to_json(self) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [record.to_json() for record in self.records],
            "matched": self.matched,
            "requested": self.requested,
            "dry_run": self.dry_run,
            "has_more": self.has_more,
        }


async def cancel_selected(
    store: Store,
    selection: Selection,
    mode: CancelMode,
    reason: str,
    *,
    limit: int,
    after: RequestRecord | None = None,
    dry_run: bool = False,
) -> Cancelled:
    """The newest `limit` that match, behind `after`. Repeating it changes nothing for those that were told."""
    wanted = selection.filter._replace(status=selection.filter.status or cluster.INFLIGHT)
    found, has_more = await cluster.list_requests(store, wanted, limit, after, selection.older_than_secs)
    if dry_run:
        return Cancelled(True, len(found), found, has_more)
    records = await _cancel_each(store, found, mode, reason)
    return Cancelled(False, len(found), records, has_more)


async def _cancel_each(
    store: Store, found: Sequence[RequestRecord], mode: CancelMode, reason: str
) -> list[RequestRecord]:
    """Their records in the same order, without what has expired. Raises StoreError, when some are cancelled already."""
    records = []
    for first in range(0, len(found), _AT_ONCE):
        calls = (store.cancel(r.id, mode, reason, retry_for_secs=1.0) for r in found[first : first + _AT_ONCE])
        for cancellation in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(cancellation, BaseException):
                raise cancellation
            if cancellation is not None:
                records.append(cancellation.record)
    return records
