"""A replica's lease. A heartbeat renews it, and then reconciles the replica's requests with Redis.

The cost of a heartbeat does not grow with the number of inflight requests: each shard compares one number and returns
differences only. Under load the numbers differ by the requests that are just ending. So the ids are compared only when
the numbers have differed twice in a row, and at most once in a lease, or at once when Redis has lost its data.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import lifecycle
from lifecycle.aio import tasks
from lifecycle.errors import ConfigurationConflict, Fenced, LifecycleError, StoreError
from lifecycle.ids import new_replica_id
from lifecycle.store.results import PendingCancellation, Reconciliation, Renewal
from lifecycle.store.transitions import Store
from lifecycle.types import Role

log = logging.getLogger(__name__)

_MISMATCHES = 2  # in a row, after which the ids are compared


class Holder(Protocol):
    """The owner of the requests under a lease: the tracker of a frontend, or a worker."""

    def held(self, shard: int) -> Collection[str]:
        """Return the ids of the requests of that shard which this replica holds."""

    def about(self) -> dict[str, Any]:
        """Return the description that `GET /v1/replicas` shows, as a JSON object."""

    async def on_pending_cancellations(self, cancellations: Sequence[PendingCancellation]) -> None:
        """Handle cancellations that may have been missed. Each comes again until it is confirmed."""

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        """Handle requests that this replica holds but Redis does not count as its own."""

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        """Handle requests that Redis counts as this replica's but it does not hold."""

    async def on_new_epoch(self, shard: int) -> None:
        """Handle a shard's loss of its data. `on_not_in_redis` follows with the requests that were lost."""

    async def on_data_lost(self, shard: int) -> None:
        """Handle a shard's loss of its last writes, as by a failover. What is held is compared afterwards."""


class Lease:
    """The lease of one replica, under a new random id.

    `run()` ends with Fenced when the lease has expired, or when the replica must assume so. The replica then joins
    again with a new instance.
    """

    def __init__(
        self,
        store: Store,
        role: Role,
        holder: Holder,
        models: Sequence[str] = (),
        on_renewed: Callable[[Renewal], None] | None = None,
    ) -> None:
        """`on_renewed` is called after each heartbeat; without it this replica is never told to sweep."""
        self.id = new_replica_id(role.value)
        self.role = role
        self.started_at = time.time()
        self._store = store
        self._holder = holder
        self._on_renewed = on_renewed
        self._models = tuple(models)
        self._renewed_at = time.monotonic()
        self._announced: dict[str, Any] | None = None  # by the last heartbeat, while the lease is to be kept
        self._mismatches = [0] * store.settings.shards
        self._compare_at = [0.0] * store.settings.shards
        self._epochs: list[str | None] = [None] * store.settings.shards
        self._ticks = [0] * store.settings.shards

    @property
    def age_secs(self) -> float:
        """Return the seconds since Redis last confirmed the lease."""
        return time.monotonic() - self._renewed_at

    @property
    def is_announced(self) -> bool:
        """Return whether the replica has joined, and neither left nor been fenced."""
        return self._announced is not None

    async def join(self, retry_for_secs: float) -> None:
        """Join the cluster with the first heartbeat, repeated for at most `retry_for_secs`.

        Raises StoreUnavailable, or ConfigurationConflict when living replicas run with other common settings.
        """
        await self.heartbeat(retry_for_secs)

    async def heartbeat(self, retry_for_secs: float = 0.0) -> None:
        """Renew the lease once. Raises StoreUnavailable, Fenced or ConfigurationConflict."""
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": self.started_at,
            "version": lifecycle.__version__,
        }
        announced = about | self._holder.about()
        sweeps = self._on_renewed is not None
        renewal = await self._send(self._store, announced, sweeps=sweeps, retry_for_secs=retry_for_secs)
        self._announced = announced
        if self._on_renewed is not None:
            self._on_renewed(renewal)

    async def renew_through(self, store: Store) -> None:
        """Renew the lease over a connection of another thread, with what the last heartbeat has announced.

        It is called while the replica's own event loop is blocked, and does nothing unless `is_announced`. Raises as
        `heartbeat` does; a lease that has expired is not renewed by it again.
        """
        announced = self._announced
        if announced is None:
            return
        store.settings, store.common = self._store.settings, self._store.common
        try:
            await self._send(store, announced, sweeps=False)
        except (Fenced, ConfigurationConflict):
            self._announced = None
            raise

    async def _send(
        self, store: Store, announced: dict[str, Any], *, sweeps: bool, retry_for_secs: float = 0.0
    ) -> Renewal:
        asked_at = time.monotonic()
        renewal = await store.heartbeat(
            self.id, self.role, announced, self._models, sweeps=sweeps, retry_for_secs=retry_for_secs
        )
        self._renewed_at = max(self._renewed_at, asked_at)
        return renewal

    async def run(self) -> None:
        """Send heartbeats and reconcile every `heartbeat_secs`, until cancelled.

        Raises Fenced when the lease has expired, or when Redis has not answered for two leases: other replicas may have
        expired this one meanwhile, and its clients must not wait for ever. Raises ConfigurationConflict when living
        replicas run with other common settings. Other errors are logged, and the next heartbeat follows.
        """
        try:
            await self._keep()
        finally:
            self._announced = None

    async def _keep(self) -> None:
        settings = self._store.settings
        while True:
            await asyncio.sleep(settings.heartbeat_secs)
            try:
                await self.heartbeat()
                await self._reconcile_all()
            except StoreError as failure:
                tasks.check_cancelled()
                log.warning("A heartbeat failed and is repeated in %g seconds: %s", settings.heartbeat_secs, failure)
                if self.age_secs > 2 * settings.lease_secs:
                    message = f"Redis has not answered for more than two leases ({2 * settings.lease_secs:g} seconds)"
                    raise Fenced(message, error_type=failure.error_type) from failure
            except LifecycleError:
                raise  # Fenced or ConfigurationConflict, which a later heartbeat cannot repair
            except Exception:
                tasks.check_cancelled()
                log.exception("A heartbeat or its reconciliation failed with an unexpected error")

    async def _reconcile_all(self) -> None:
        """Reconcile every shard, whether or not another fails. Raises Fenced, else a StoreError, if a shard failed."""
        shards = range(self._store.settings.shards)
        outcomes = await asyncio.gather(*(self._reconcile(shard) for shard in shards), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if isinstance(failure, Fenced):
                raise failure
            if not isinstance(failure, StoreError):
                log.error("A reconciliation failed with an unexpected error", exc_info=failure)
        for failure in failures:
            if isinstance(failure, StoreError):
                raise failure

    async def _reconcile(self, shard: int) -> None:
        held = self._holder.held(shard)
        now = time.monotonic()
        compare = self._mismatches[shard] >= _MISMATCHES and now >= self._compare_at[shard]
        reconciliation = await self._ask(shard, held, compare)
        if self._epochs[shard] not in (None, reconciliation.epoch):
            log.warning("Redis has lost the data of shard %d; its requests end as state_lost", shard)
            await self._holder.on_new_epoch(shard)
            compare = True
            reconciliation = await self._ask(shard, held, compare)
        if reconciliation.tick <= self._ticks[shard]:  # so too if the epoch was among the last writes
            log.warning(
                "Redis has lost the last writes of shard %d; what is running and what has ended is checked", shard
            )
            self._ticks[shard] = sys.maxsize  # after a failure on the way this is repeated
            await self._holder.on_data_lost(shard)
            compare = True
            reconciliation = await self._ask(shard, held, compare)
        self._ticks[shard] = reconciliation.tick
        self._epochs[shard] = reconciliation.epoch  # set last, so that after a failure on the way this is repeated
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
        held = self._holder.held(shard)  # now, as some may have come while the ids were read
        if missing := [rid for rid in reconciliation.not_held_locally if rid not in held]:
            await self._holder.on_not_held_locally(missing)

    async def _ask(self, shard: int, held: Collection[str], compare: bool) -> Reconciliation:
        return await self._store.reconcile_shard(shard, self.id, self.role, list(held) if compare else None)
