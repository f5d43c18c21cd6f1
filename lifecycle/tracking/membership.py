"""Keep a frontend a member of its cluster: hold its lease, receive its pushes, come back when fenced, and leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreError
from lifecycle.replica.lease import Lease
from lifecycle.replica.reaper import Reaper
from lifecycle.store.connect import Connections
from lifecycle.store.results import PendingCancellation
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tokens.inbox import Inbox
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.model_registry import ModelRegistry
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.push_dispatcher import PushDispatcher
from lifecycle.tracking.readers import Readers
from lifecycle.types import ErrorType, ReplicaState, Role

log = logging.getLogger(__name__)


class Membership:
    """Hold a frontend's lease (`lease.Holder`)."""

    def __init__(
        self,
        state: FrontendState,
        connections: Connections,
        metrics: Metrics,
        models: ModelRegistry,
        readers: Readers,
        owned: OwnedRequests,
    ) -> None:
        self._state = state
        self._connections = connections
        self._store = connections.store
        self._settings = connections.store.settings
        self._metrics = metrics
        self._models = models
        self._readers = readers
        self._owned = owned
        self._pushes = PushDispatcher(state, readers, owned)
        self._reaper = Reaper(self._store)
        self._leaving = False
        self.lease = self._new_lease()

    def _new_lease(self) -> Lease:
        lease = Lease(self._store, Role.FRONTEND, self, on_renewed=self._reaper.on_renewed)
        self._state.id = lease.id
        return lease

    async def join(self, retry_for_secs: float) -> None:
        """Send the first heartbeat. Raises StoreUnavailable; ConfigurationConflict when replicas disagree."""
        await self.lease.join(retry_for_secs)

    async def announce(self) -> None:
        """Show the cluster at once that this frontend drains, unless its lease has expired."""
        with suppress(StoreError, Fenced):
            await self.lease.heartbeat()

    async def leave(self) -> None:
        """Leave the cluster: requests that may outlive their connection go on under another frontend, the rest end."""
        self._leaving = True
        try:
            with suppress(StoreError):
                await self._reaper.sweep(leaving=self._state.id)
                await self._owned.leave_live_requests()
        finally:
            self.end_streams(ErrorType.FRONTEND_LOST, "The frontend was shut down")

    def end_streams(self, error_type: ErrorType, message: str) -> None:
        """End every stream of this frontend with an error frame now."""
        self._owned.lose_all(error_type, message)
        self._readers.end_all(error_type, message)

    async def run_reaper(self) -> None:
        """Reap expired replicas and overdue requests until cancelled."""
        await self._reaper.run()

    async def run(self) -> None:
        """Send heartbeats and read the inboxes until cancelled, or until this frontend has left.

        When fenced, end every stream with an error and come back under a new id.
        """
        while True:
            try:
                await self._run_under_one_id()
            except* Fenced as fenced:
                cause = fenced.exceptions[0]
            if self._leaving:
                return  # leaving ends the lease, and so fences this frontend
            log.error("fenced: %s; every stream ends, and this frontend comes back under a new id", cause)
            assert isinstance(cause, Fenced)  # raised by a task of the group itself
            self._owned.break_off_all(cause.error_type, cause.message)
            self._readers.end_all(cause.error_type, cause.message)
            self.lease = self._new_lease()
            while True:
                with suppress(StoreError):
                    await self.lease.join(self._settings.lease_secs)
                    break
                tasks.check_cancelled()
                await asyncio.sleep(self._settings.heartbeat_secs)

    async def _run_under_one_id(self) -> None:
        """Raises Fenced in an exception group."""
        inboxes = [
            Inbox(
                factory,
                self._store.keys.inbox(shard, self._state.id),
                self._pushes.dispatch,
                partial(self._pushes.mark_stale, shard),
            )
            for shard, factory in enumerate(self._connections.push_factories)
        ]
        async with asyncio.TaskGroup() as group:
            for inbox in inboxes:
                group.create_task(inbox.run(), name="inbox")
            group.create_task(self._models.run(), name="roster")
            # Not a task: one that fails while the group only waits leaves its parent marked as cancelled (CPython 3.11
            # and 3.12), and a later check of that mark, as in `run`, would end this frontend without a message.
            await self.lease.run()

    # The lease's holder

    def held(self, shard: int) -> Collection[str]:
        return self._owned.held(shard)

    def about(self) -> dict[str, Any]:
        state = ReplicaState.DRAINING if self._state.draining else ReplicaState.READY
        return {"state": state, "url": self._state.url, "counted": self._metrics.counted()}

    async def on_pending_cancellations(self, pending: Sequence[PendingCancellation]) -> None:
        """Ignore them: only workers have any."""

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        self._owned.check_lost(rids)

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        self._owned.take_over(rids)

    async def on_new_epoch(self, shard: int) -> None:
        self._readers.mark_stale(shard)

    async def on_data_lost(self, shard: int) -> None:
        self._readers.mark_stale(shard)
        self._owned.mark_stale(shard)
        self._owned.check_ended(shard)
