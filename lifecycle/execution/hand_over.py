"""Give requests that this worker's engine cannot serve to another worker, or fail them when there is none."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain

from lifecycle.aio import tasks
from lifecycle.encoding import encode_json
from lifecycle.errors import NotConnected, StoreError, Unavailable
from lifecycle.execution.engine_health import EngineHealth
from lifecycle.execution.failures import message_of
from lifecycle.ids import replica_of
from lifecycle.replica.unserved_requests import UnservedRequests
from lifecycle.store.results import Failure, Outcome, QueuedRequest, Run
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import LivingWorker, outage_of, workers_of
from lifecycle.types import ErrorDetail, ErrorType

log = logging.getLogger(__name__)

_REMEMBERED = 1000  # requests that were looked at
_RUNG = 8  # workers that are told of a request which this one does not take


class HandOver:
    """Hand requests over for one worker."""

    def __init__(self, store: Store, health: EngineHealth) -> None:
        self._store = store
        self._health = health
        self._unserved = UnservedRequests(store)
        self._looked_at: OrderedDict[str, float] = OrderedDict()  # rid → when it was found to be unsupported

    async def requeue_or_fail(self, run: Run, worker: str, cause: Unavailable) -> None:
        """Requeue a running request whose engine cannot serve and has produced nothing, or fail it.

        The worker becomes unhealthy first, so it does not get the request again. The request fails when no other
        worker can serve it, or when its attempts are used up. Raises StoreUnavailable when Redis does not answer for
        two leases; the request is then requeued by a later heartbeat, or by the reaper.
        """
        rid, model, start = run
        message = message_of(cause)
        await self._health.fail(message)
        detail = ErrorDetail(503, retry_after_secs=max(cause.retry_after_secs or 0.0, self._health.probe_in_secs))
        retry_for_secs = 2 * self._store.settings.lease_secs
        workers = await self._workers(model)
        others = [w for w in workers or () if w.id != replica_of(worker) and not w.missing(start.endpoint, start.needs)]
        if workers is not None and (not others or outage_of(others) is not None):
            log.info("request %s fails: no other worker of model %s can serve it", rid, model)
            outcome = Outcome("failed", ErrorType.UNAVAILABLE, message, detail=detail, content_events=start.base)
            await self._store.finish(rid, worker, start.attempt, outcome, start.base, retry_for_secs=retry_for_secs)
            return
        failure = Failure(message, detail, uses_attempt=not isinstance(cause, NotConnected))
        moved = await self._store.requeue(rid, worker, start.attempt, failure=failure, retry_for_secs=retry_for_secs)
        log.info("request %s is handed over to another worker of model %s: %s", rid, model, moved)

    async def ring_or_fail(self, found: Sequence[QueuedRequest], worker: str) -> None:
        """Fail a shard's queued requests that no living worker's engine takes, and ring workers that take the others.

        Each of them is looked at once in a heartbeat at most. A worker is rung once, whatever it takes of them, and no
        request is taken meanwhile. Raises StoreUnavailable.
        """
        due = [request for request in found if self._is_due(request.rid)]
        if not due:
            return
        workers = {model: await self._workers(model) or [] for model in {request.model for request in due}}
        chosen = await tasks.in_batches(lambda request: self._fail_or_choose(request, workers[request.model]), due)
        rung = set(chain.from_iterable(chosen)) - {replica_of(worker)}
        keys = self._store.keys
        bell = encode_json({"type": "bell", "prefix": keys.prefix_of(due[0].rid)})
        await tasks.in_batches(
            lambda other: self._store.command("PUBLISH", keys.worker_channel(other), bell), sorted(rung)
        )

    async def _fail_or_choose(self, request: QueuedRequest, workers: Sequence[LivingWorker]) -> list[str]:
        """Fail a request that none of its model's workers takes; else return some of those that take it."""
        if await self._unserved.end_unserved(request, workers):
            return []
        return [worker.id for worker in workers if not worker.missing(request.endpoint, request.needs)][:_RUNG]

    async def _workers(self, model: str) -> list[LivingWorker] | None:
        """Return the living workers of a model; None when Redis does not tell."""
        try:
            roster = await self._store.listed()
        except StoreError:
            return None
        return [w for w in workers_of(roster, self._store.settings.lease_secs) if model in w.models]

    def _is_due(self, rid: str) -> bool:
        """Return whether the request was not looked at within the last heartbeat, and note that it is."""
        now = time.monotonic()
        looked_at = self._looked_at.pop(rid, float("-inf"))
        is_due = now - looked_at >= self._store.settings.heartbeat_secs
        self._looked_at[rid] = now if is_due else looked_at
        if len(self._looked_at) > _REMEMBERED:
            self._looked_at.popitem(last=False)
        return is_due
