"""A replica's lease: one heartbeat renews it, and brings back what the replica missed.

The cost of a heartbeat does not grow with what is in flight: Redis compares a number in each shard and returns
exceptions only. Under load the numbers differ by what is just ending; so the ids are compared only when the numbers
disagree twice in a row, and once a lease at most; or at once, when Redis has lost its data.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import lifecycle
from lifecycle.aio import tasks
from lifecycle.errors import Fenced, LifecycleError, StoreError
from lifecycle.ids import new_replica_id
from lifecycle.store.results import PendingCancellation, Reconciliation
from lifecycle.store.transitions import Store
from lifecycle.types import Role

log = logging.getLogger(__name__)

_MISMATCHES = 2


class Holder(Protocol):
    """Who holds requests under the lease: the frontend's tracker, the worker's loop."""

    def held(self, shard: int) -> Collection[str]:
        """The rids this replica believes to hold in that shard."""

    def about(self) -> dict[str, Any]:
        """What /v1/replicas shows of it."""

    async def on_pending_cancellations(self, orders: Sequence[PendingCancellation]) -> None:
        """Cancels that may have been missed. They come again until they are confirmed."""

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        """Redis does not count these as this replica's."""

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        """Redis counts these as this replica's, and it does not know them."""

    async def on_new_epoch(self, shard: int) -> None:
        """This shard of Redis has lost its data and begins anew; `on_not_in_redis` then names
        what this replica held."""


class Lease:
    """Joins, beats, and ends with Fenced when others have buried this replica, or it must assume so."""

    def __init__(self, store: Store, role: Role, holder: Holder, models: Sequence[str] = ()) -> None:
        self.id = new_replica_id(role.value)
        self.role = role
        self.started_at = time.time()
        self._store = store
        self._holder = holder
        self._models = tuple(models)
        self._renewed_at = time.monotonic()
        self._mismatches = [0] * store.settings.shards
        self._compare_at = [0.0] * store.settings.shards
        self._epochs: list[str | None] = [None] * store.settings.shards

    @property
    def silence_secs(self) -> float:
        """Since Redis last confirmed the lease."""
        return time.monotonic() - self._renewed_at

    async def join(self, retry_for_secs: float) -> None:
        """First heartbeat. Raises StoreUnavailable, or ConfigurationConflict when replicas disagree."""
        await self.heartbeat(retry_for_secs)

    async def heartbeat(self, retry_for_secs: float = 0.0) -> None:
        asked_at = time.monotonic()
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": self.started_at,
            "version": lifecycle.__version__,
        }
        await self._store.heartbeat(
            self.id, self.role, about | self._holder.about(), self._models, retry_for_secs=retry_for_secs
        )
        self._renewed_at = asked_at

    async def run(self) -> None:
        """Beat for ever. Raises Fenced.

        Without an answer for two leases the replica fences itself: others may have drawn the consequences, and
        whoever waits on it deserves an end.
        """
        settings = self._store.settings
        while True:
            await asyncio.sleep(settings.heartbeat_secs)
            try:
                await self.heartbeat()
                await self._reconcile_all()
            except StoreError as failure:
                tasks.check_cancelled()
                log.warning("heartbeat failed: %s", failure)
                if self.silence_secs > 2 * settings.lease_secs:
                    raise Fenced("Redis was out of reach for too long", error_type=failure.error_type) from failure
            except LifecycleError:
                raise  # fenced, or at odds with the others: no heartbeat mends that
            except Exception:
                tasks.check_cancelled()
                log.exception("a heartbeat, or what it brought back, failed")

    async def _reconcile_all(self) -> None:
        """Every shard's, whatever becomes of another's; then the gravest failure is raised."""
        shards = range(self._store.settings.shards)
        outcomes = await asyncio.gather(*(self._reconcile(shard) for shard in shards), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if isinstance(failure, Fenced):
                raise failure
            if not isinstance(failure, StoreError):
                log.error("a reconciliation failed", exc_info=failure)
        for failure in failures:
            if isinstance(failure, StoreError):
                raise failure

    async def _reconcile(self, shard: int) -> None:
        held = self._holder.held(shard)
        now = time.monotonic()
        compare = self._mismatches[shard] >= _MISMATCHES and now >= self._compare_at[shard]
        reconciliation = await self._ask(shard, held, compare)
        if self._epochs[shard] not in (None, reconciliation.epoch):
            log.warning("Redis has lost the data of shard %d", shard)
            await self._holder.on_new_epoch(shard)
            compare = True
            reconciliation = await self._ask(shard, held, compare)
        self._epochs[shard] = reconciliation.epoch  # only now: what failed on the way comes again
        if compare:
            self._compare_at[shard] = now + self._store.settings.lease_secs
        if compare or reconciliation.held == len(held):
            self._mismatches[shard] = 0
        else:
            self._mismatches[shard] += 1
        if reconciliation.pending_cancellations:
            await self._holder.on_pending_cancellations(reconciliation.pending_cancellations)
        if reconciliation.not_in_redis:
            await self._holder.on_not_in_redis(reconciliation.not_in_redis)
        if reconciliation.not_held_locally:
            await self._holder.on_not_held_locally(reconciliation.not_held_locally)

    async def _ask(self, shard: int, held: Collection[str], compare: bool) -> Reconciliation:
        return await self._store.reconcile_shard(shard, self.id, self.role, len(held), list(held) if compare else None)
