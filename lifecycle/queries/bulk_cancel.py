"""Cancel requests by what they have in common: all of a model, all of a worker, all older than ten minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lifecycle.aio import tasks
from lifecycle.queries import cluster
from lifecycle.store.results import Cancellation
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, RequestRecord, Status

STATUSES = (cluster.INFLIGHT, Status.QUEUED, Status.RUNNING)
PAGE_MAX = 1000
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Selector:
    """Select requests inflight that match every given field; their age is from admission, by Redis's clock."""

    filter: cluster.Filter
    older_than_secs: float | None = None

    @property
    def empty(self) -> bool:
        """Return whether no field is given. Everything would match then, which must be asked for by a status."""
        return not any(self.filter) and self.older_than_secs is None


@dataclass(slots=True)
class Cancelled:
    """Hold a page of the records that a selector matched, as they are now. In a dry run nothing is cancelled."""

    dry_run: bool
    matched: int = 0
    records: list[RequestRecord] = field(default_factory=list)
    has_more: bool = False

    @property
    def requested(self) -> int:
        """Count the records with a cancel; a request that had ended before has none."""
        return 0 if self.dry_run else sum(record.cancel_requested_at is not None for record in self.records)

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer to `POST /v1/requests/cancel`."""
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
    selector: Selector,
    mode: CancelMode,
    reason: str,
    *,
    by: str,
    via: str = "",
    limit: int,
    after: RequestRecord | None = None,
    dry_run: bool = False,
) -> Cancelled:
    """Cancel the newest `limit` matching requests older than `after`. A repetition changes no cancelled request.

    `by` and `via` say who cancels them and through which frontend, as in `Store.cancel`.

    Raises StoreUnavailable, possibly after some of them have been cancelled.
    """
    filter = selector.filter._replace(status=selector.filter.status or cluster.INFLIGHT)
    found, has_more = await cluster.list_requests(store, filter, limit, after, selector.older_than_secs)
    if dry_run:
        return Cancelled(True, len(found), found, has_more)
    records = await _cancel_each(store, found, mode, reason, by, via)
    return Cancelled(False, len(found), records, has_more)


async def _cancel_each(
    store: Store, found: Sequence[RequestRecord], mode: CancelMode, reason: str, by: str, via: str
) -> list[RequestRecord]:
    """Return the records in the same order, without those that have expired meanwhile."""

    async def cancel(record: RequestRecord) -> Cancellation | None:
        return await store.cancel(record.id, mode, reason, by=by, via=via, retry_for_secs=1.0)

    cancellations = await tasks.in_batches(cancel, found, _AT_ONCE)
    return [cancellation.record for cancellation in cancellations if cancellation is not None]
