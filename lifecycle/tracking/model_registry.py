"""Know which models the cluster serves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from lifecycle.aio import tasks
from lifecycle.errors import StoreError, StoreUnavailable
from lifecycle.store.results import Roster
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import (
    LivingWorker,
    Missing,
    Outage,
    by_model,
    find_unsupported,
    outage_of,
    slots_of,
    workers_of,
)

_PROBES_READ = 8  # workers whose next probe is read for one error
_MOST_SERVED = 1000  # kinds of calls that are remembered

ModelState = Literal["live", "known", "unknown"]
"""`live`: a worker offers the model, healthy or not. `known`: a worker has offered it, as far as Redis or this frontend
knows, or is just being started.
"""


class ModelRegistry:
    """Cache the roster of one frontend's cluster."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._roster: Roster | None = None
        self._version = ("", "")  # of the list, which others in this process may have read later
        self._asked_at = float("-inf")  # loop time at which Redis was last asked for the roster
        self._failure: StoreUnavailable | None = None  # of that time
        self._lock = asyncio.Lock()
        self._known: set[str] = set()
        self._workers: dict[str, list[LivingWorker]] = {}  # by model
        self._served: set[tuple[str, str, tuple[str, ...]]] = set()  # calls that `is_served` has found, by this roster

    def is_served(self, model: str, endpoint: str, needs: tuple[str, ...]) -> bool:
        """Return whether the roster shows a live model that takes a call to this endpoint with these needs.

        Then the methods that tell why a call is refused, which may ask Redis, need not be called.
        """
        call = (model, endpoint, needs)
        if call in self._served:
            return True
        workers = self._workers_of(model)
        if self._cached_state(model) != "live" or outage_of(workers) or find_unsupported(workers, endpoint, needs):
            return False
        if len(self._served) >= _MOST_SERVED:
            self._served.clear()
        self._served.add(call)
        return True

    async def state_of(self, model: str) -> ModelState:
        """Return a model's state. Raises StoreUnavailable.

        The roster is refreshed unless the model is live. A model that Redis does not know costs one small command.
        """
        state = self._cached_state(model)
        if state == "unknown" and await self._store.is_known_model(model):
            self._known.add(model)
            state = "known"
        if state == "known":
            await self.refresh()
        return self._cached_state(model)

    def slots_of(self, model: str) -> int:
        """Return how many requests for the model its workers can run at a time, as they announced it last."""
        return slots_of(self._workers_of(model)).get(model, 0)

    async def find_outage(self, model: str) -> Outage | None:
        """Return the error for a model whose living workers are all unhealthy; None when one is not.

        The roster is refreshed before an error is returned. Raises StoreUnavailable.
        """
        if outage_of(self._workers_of(model)) is None:
            return None
        await self.refresh()
        outage = outage_of(self._workers_of(model))
        return outage and outage._replace(retry_after_secs=await self._next_probe_secs(model))

    async def _next_probe_secs(self, model: str) -> float:
        """Return the time until the next probe of an unhealthy worker of the model, as they announced it last."""
        some = [worker.id for worker in self._workers_of(model)[:_PROBES_READ]]
        return await self._store.next_probe_secs(some)

    async def find_unsupported(self, model: str, endpoint: str, needs: Sequence[str]) -> Missing | None:
        """Return what keeps every living worker of the model from a call to this endpoint with these needs.

        Returns None when one worker has everything, or when no worker lives. The roster is refreshed before anything
        else is returned. Raises StoreUnavailable.
        """
        if find_unsupported(self._workers_of(model), endpoint, needs) is not None:
            await self.refresh()
        return find_unsupported(self._workers_of(model), endpoint, needs)

    async def find_models(self, endpoint: str) -> list[str]:
        """Return the models that a call to this endpoint may mean when it names none, sorted.

        They are those that a worker offers together with the endpoint; if there is none, all that workers offer; and if
        there is none of these either, those that are known. The roster is refreshed, because a further model changes
        the meaning of such a call. Raises StoreUnavailable.
        """
        await self.refresh()
        return self._offering(endpoint) or self._offering() or sorted(self._known)

    def _offering(self, endpoint: str | None = None) -> list[str]:
        """Return the models that workers offer, with this endpoint if one is given."""
        return sorted(
            model
            for model, workers in self._workers.items()
            if any(worker.offers and (endpoint is None or endpoint in worker.endpoints) for worker in workers)
        )

    async def refresh(self) -> Roster:
        """Return a roster no older than this call. Callers that wait at the same time share it, or its failure.

        Raises StoreUnavailable.
        """
        clock = asyncio.get_running_loop().time
        called_at = clock()
        async with self._lock:
            if self._asked_at < called_at:
                asked_at = clock()
                try:
                    self._roster, self._failure = await self._store.listed(), None
                    self._version = self._store.roster_cache.epoch, self._store.roster_cache.version
                    self._workers = by_model(workers_of(self._roster, self._store.settings.lease_secs))
                    self._known.update(self._roster.models, self._workers)
                    self._served.clear()
                except StoreUnavailable as failure:
                    self._failure = failure
                self._asked_at = asked_at
            if self._failure is not None:
                raise StoreUnavailable(self._failure.summary, self._failure.cause)
            assert self._roster is not None
            return self._roster

    async def run(self) -> None:
        """Refresh the roster when a heartbeat has shown that it has changed, until cancelled."""
        while True:
            await asyncio.sleep(self._store.settings.heartbeat_secs)
            if self._version != self._store.roster_cache.announced:
                with suppress(StoreError):
                    await self.refresh()
                tasks.check_cancelled()

    def _workers_of(self, model: str) -> Sequence[LivingWorker]:
        return self._workers.get(model, ())

    def _cached_state(self, model: str) -> ModelState:
        if any(worker.offers for worker in self._workers_of(model)):
            return "live"
        return "known" if model in self._known else "unknown"
