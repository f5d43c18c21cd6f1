"""Give requests that this worker's engine cannot serve to another worker, or fail them when there is none."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from lifecycle.errors import NotConnected, StoreError, Unavailable
from lifecycle.execution.engine_health import EngineHealth
from lifecycle.execution.failures import message_of
from lifecycle.execution.queue_consumer import Delivery
from lifecycle.store.results import Failure, Outcome, Start, Unsupported
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import LivingWorker, find_unsupported, outage_of, workers_of
from lifecycle.types import ErrorDetail, ErrorType

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECS = 0.05
_LONGEST_PAUSE_SECS = 0.5
_REMEMBERED = 1000  # requests whose returns are counted


class HandOver:
    """Hand requests over for one worker."""

    def __init__(self, store: Store, health: EngineHealth) -> None:
        self._store = store
        self._health = health
        self._returns: OrderedDict[str, int] = OrderedDict()  # rid → how often it was returned as unsupported

    async def unavailable(self, rid: str, worker: str, model: str, start: Start, cause: Unavailable) -> None:
        """Requeue a running request whose engine cannot serve and has produced nothing, or fail it.

        The worker becomes unhealthy first, so it does not get the request again. The request fails when no other
        worker can serve it, or when its attempts are used up. Raises StoreUnavailable when Redis does not answer for
        two leases; the request is then requeued by a later heartbeat, or by the reaper.
        """
        message = message_of(cause)
        await self._health.fail(message)
        detail = ErrorDetail(503, retry_after_secs=max(cause.retry_after_secs or 0.0, self._health.probe_in_secs))
        retry_for_secs = 2 * self._store.settings.lease_secs
        workers = await self._workers(model)
        others = [w for w in workers or () if w.id != worker and not w.missing(start.endpoint, start.needs)]
        if workers is not None and (not others or outage_of(others) is not None):
            log.info("request %s fails: no other worker of model %s can serve it", rid, model)
            outcome = Outcome("failed", ErrorType.UNAVAILABLE, message, detail=detail, content_events=start.base)
            await self._store.finish(rid, worker, start.attempt, outcome, start.base, retry_for_secs=retry_for_secs)
            return
        failure = Failure(message, detail, uses_attempt=not isinstance(cause, NotConnected))
        moved = await self._store.requeue(
            rid, worker, attempt=start.attempt, failure=failure, retry_for_secs=retry_for_secs
        )
        log.info("request %s is handed over to another worker of model %s: %s", rid, model, moved)

    async def unsupported(self, delivery: Delivery, worker: str, unsupported: Unsupported) -> None:
        """Requeue a delivery that needs what this worker's engine does not take, or fail its request.

        A request that comes back again and again, because the workers that accept it are busy, is held for a growing
        time of up to half a second. Raises StoreUnavailable.
        """
        rid, model = delivery.rid, delivery.model
        retry_for_secs = self._store.settings.lease_secs
        workers = await self._workers(model) or ()
        outage = outage_of([other for other in workers if not other.missing(*unsupported)])
        if outage is not None:
            await self._store.fail(rid, ErrorType.UNAVAILABLE, outage.message, detail=outage.detail)
            return
        missing = find_unsupported(workers, *unsupported)
        if missing is not None:
            await self._store.fail(rid, ErrorType.VALIDATION, missing.message(model), detail=missing.detail)
            return
        await asyncio.sleep(self._pause_secs(rid))
        await self._store.requeue(
            rid, worker, queue=delivery.queue, entry=delivery.entry, retry_for_secs=retry_for_secs
        )

    async def _workers(self, model: str) -> list[LivingWorker] | None:
        """Return the living workers of a model; None when Redis does not tell."""
        try:
            roster = await self._store.listed()
        except StoreError:
            return None
        return [w for w in workers_of(roster, self._store.settings.lease_secs) if model in w.models]

    def _pause_secs(self, rid: str) -> float:
        """Return how long to hold a request: nothing the first time, then longer each time it comes back."""
        returns = self._returns.pop(rid, 0)
        self._returns[rid] = returns + 1
        if len(self._returns) > _REMEMBERED:
            self._returns.popitem(last=False)
        return 0.0 if returns == 0 else min(_LONGEST_PAUSE_SECS, _FIRST_PAUSE_SECS * 2.0 ** min(returns - 1, 10))
