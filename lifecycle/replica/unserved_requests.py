"""End the queued requests that no living worker of their model takes any more.

A worker with a free slot finds out about those that it sees. Whoever sweeps a shard finds the others, since every
worker may be busy, or may look at requests that are before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lifecycle.aio import tasks
from lifecycle.store.results import QueuedPage, QueuedRequest
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import LivingWorker, Offered, by_model, find_unsupported, offers_of, outage_of
from lifecycle.types import ErrorType

PAGE = 200
"""How many requests one call examines, which takes Redis less than a millisecond."""

_PAGES_LIMIT = 50  # in one sweep of a shard; the next one of this replica continues

_Offers = Mapping[str, frozenset[Offered]]


class UnservedRequests:
    """Find and end such requests.

    What waits is read when this replica comes to a shard for the first time, and when something that workers have
    offered is offered no more. A request is admitted only for what is offered, so otherwise all of them are served.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offers: dict[int, _Offers] = {}  # of which everything that waits in the shard is known to be served
        # Where the next sweep of the shard continues, and all that was offered during those before.
        self._next: dict[int, tuple[QueuedPage, _Offers]] = {}

    async def check(self, shard: int, workers: Sequence[LivingWorker]) -> None:
        """End what waits in a shard and is not taken by any of these workers, which are all that live.

        Raises StoreUnavailable.
        """
        if not self._is_restored():
            return
        known, offers = self._offers.get(shard), offers_of(workers)
        if known is not None and all(was <= offers.get(model, frozenset()) for model, was in known.items()):
            self._offers[shard] = offers
            return
        page, offered_before = self._next.pop(shard, (QueuedPage.first(), {}))
        serving, offered = by_model(workers), dict(offers)
        for model, before in offered_before.items():
            offered[model] = offered.get(model, frozenset()) | before

        async def end(request: QueuedRequest) -> None:
            await self.end_unserved(request, serving.get(request.model, ()))

        for _ in range(_PAGES_LIMIT):
            page = await self._store.queued_page(shard, page, PAGE)
            await tasks.in_batches(end, page.requests)
            if page.is_last:
                self._offers[shard] = offered
                return
        self._next[shard] = page, offered

    async def end_unserved(self, request: QueuedRequest, workers: Sequence[LivingWorker]) -> bool:
        """End a queued request that none of its model's living workers takes. Return whether none does.

        Nothing is refused while a list of workers that was lost is not restored. Raises StoreUnavailable.
        """
        outage = outage_of([worker for worker in workers if not worker.missing(request.endpoint, request.needs)])
        missing = find_unsupported(workers, request.endpoint, request.needs)
        if outage is not None:
            error, message, detail = ErrorType.UNAVAILABLE, outage.message, outage.detail
        elif missing is not None and self._is_restored():
            error, message, detail = ErrorType.VALIDATION, missing.message(request.model), missing.detail
        else:
            return False
        await self._store.fail(request.rid, error, message, detail=detail, only_queued=True)
        return True

    def _is_restored(self) -> bool:
        """Return whether each living replica has had the time to be listed again since the list was lost."""
        return not 0.0 <= self._store.roster_cache.age_secs < 2 * self._store.settings.heartbeat_secs
