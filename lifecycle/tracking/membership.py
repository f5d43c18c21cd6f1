"""Keep a frontend a member of its cluster: hold its lease, receive its pushes, come back when fenced, and leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreError, StoreUnavailable
from lifecycle.replica.lease import Lease
from lifecycle.replica.reaper import Reaper
from lifecycle.store.connect import Connections
from lifecycle.store.instructions import Instruction
from lifecycle.store.results import Outcome, PendingCancellation
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tokens.inbox import Inbox
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.local_runs import LocalRuns
from lifecycle.tracking.model_registry import ModelRegistry
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.push_dispatcher import PushDispatcher
from lifecycle.tracking.readers import Readers
from lifecycle.types import CancelMode, ErrorType, ReplicaState, Role

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
        local_runs: LocalRuns,
    ) -> None:
        self._state = state
        self._store = connections.store
        self._subscriptions = connections.subscriptions
        self._metrics = metrics
        self._models = models
        self._readers = readers
        self._owned = owned
        self._local_runs = local_runs
        self._pushes = PushDispatcher(state, readers, owned)
        self._reaper = Reaper(self._store)
        self.lease = Lease(self._store, Role.FRONTEND, self, on_sweep_due=self._reaper.sweep_soon)
        state.id, state.lease, state.renew = self.lease.id, self.lease, self.lease.hurry
        local_runs.begin(connections, self.lease)
        self._inboxes = [
            Inbox(
                factory,
                self._store.keys.inbox(shard, self.lease.ids[shard]),
                self._pushes.dispatch,
                partial(self._pushes.mark_stale, shard),
            )
            for shard, factory in enumerate(connections.push_factories)
        ]

    async def join(self, retry_for_secs: float) -> None:
        """Send the first heartbeat. Raises StoreUnavailable; ConfigurationConflict when replicas disagree."""
        await self.lease.join(retry_for_secs)

    async def announce(self) -> None:
        """Show the cluster at once that this frontend drains."""
        with suppress(StoreError):
            await self.lease.announce()

    async def leave(self) -> None:
        """Leave the cluster: requests that may outlive their connection go on under another frontend, the rest end."""
        try:
            with suppress(StoreError):
                self._state.has_left = True
                await self.lease.leave_shards(self._reaper.sweep)
                await self._owned.leave_live_requests()
        finally:
            self.end_streams(ErrorType.FRONTEND_LOST, "The frontend was shut down")
        await self.lease.leave_list()

    def end_streams(self, error_type: ErrorType, message: str) -> None:
        """End every stream of this frontend with an error frame now."""
        self._owned.lose_all(error_type, message)
        self._readers.end_all(error_type, message)

    async def run_reaper(self) -> None:
        """Reap expired replicas and overdue requests until cancelled."""
        await self._reaper.run()

    async def run(self) -> None:
        """Send heartbeats and read the inboxes until cancelled, or until this frontend has left."""
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(inbox.run(), name="inbox") for inbox in self._inboxes]
            background.append(group.create_task(self._listen(), name="instructions"))
            background.append(group.create_task(self._models.run(), name="roster"))
            background.append(group.create_task(self._local_runs.serve(), name="local runs"))
            try:
                await self.lease.run()
            finally:
                await tasks.end(background)

    async def _listen(self) -> None:
        """Subscribe to this frontend's instructions. Without it, it learns of each by its next heartbeat."""
        channel = self._store.keys.frontend_channel(self.lease.id)
        while True:
            tasks.check_cancelled()
            with suppress(StoreUnavailable):
                await self._subscriptions.subscribe(channel, lambda _: self.lease.hurry(), on_gap=self.lease.hurry)
                return

    # The lease's holder

    def held(self, shard: int) -> Collection[str]:
        return self._owned.held(shard)

    def about(self) -> dict[str, Any]:
        state = ReplicaState.DRAINING if self._state.draining else ReplicaState.READY
        return {"state": state, "url": self._state.url or None, "counted": self._metrics.counted()}

    async def on_pending_cancellations(self, pending: Sequence[PendingCancellation]) -> None:
        """Cancel what runs here, and confirm the cancels of requests that do not."""
        absent = [rid for rid, mode, _ in pending if not self._local_runs.cancel(rid, CancelMode(mode))]
        await tasks.in_batches(self._confirm_not_running, absent)

    async def _confirm_not_running(self, rid: str) -> None:
        record = await self._store.read(rid)
        attempt = record.attempt if record is not None else 0
        cancelled = Outcome("cancelled", ErrorType.CANCELLED, "cancelled")
        await self._store.finish(rid, self._state.id_for(rid), attempt, cancelled, 0)

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        self._owned.check_lost(rids)

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        self._owned.take_over(rids)

    def on_instruction(self, instruction: Instruction) -> None:
        """Drain, as an operator wants it. A frontend is told nothing else."""
        log.info("%s is told to %s by %s", self.lease.id, instruction.action.value, instruction.by)
        self._state.drain()

    def on_fenced(self, shard: int, expired: str, cause: Fenced) -> None:
        """End the streams of the shard with an error; its requests are another frontend's now, or have ended."""
        log.error("%s is fenced in shard %d, whose streams end: %s", expired, shard, cause)
        self._owned.break_off(shard, expired, cause.error_type, cause.message)
        self._readers.end_shard(shard, cause.error_type, cause.message)
        self._inboxes[shard].follow(self._store.keys.inbox(shard, self.lease.ids[shard]))

    async def on_new_epoch(self, shard: int) -> None:
        self._readers.mark_stale(shard)

    async def on_data_lost(self, shard: int) -> None:
        self._readers.mark_stale(shard)
        self._readers.report_again(shard)
        self._owned.mark_stale(shard)
        self._owned.check_ended(shard)
        self._local_runs.check_streams(shard)
