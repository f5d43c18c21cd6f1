"""Run what is tracked in this process, under the ids of its frontend."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from lifecycle.aio import tasks
from lifecycle.application.tracked_attempt import Source, TrackedAttempt
from lifecycle.errors import StoreError, StoreUnavailable
from lifecycle.execution.failures import message_of
from lifecycle.replica.lease import Lease
from lifecycle.store.connect import Connections
from lifecycle.store.pubsub import Message, Subscription
from lifecycle.store.results import Ended, Start
from lifecycle.telemetry.tracing import AttemptSpan
from lifecycle.tokens.held_back_sink import HeldBackWriter
from lifecycle.types import CancelMode, ErrorType

log = logging.getLogger(__name__)


class LocalAttempts:
    """Own the attempts that run here, and their tasks (`tracking.local_runs.LocalRuns`)."""

    def __init__(self) -> None:
        """Start with none; `begin` follows before the first one."""
        self._connections: Connections
        self._lease: Lease
        self._writer: HeldBackWriter
        self._hears_cancels = asyncio.Event()
        self._attempts: dict[str, TrackedAttempt] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, connections: Connections, lease: Lease) -> None:
        """Get ready to run, under the ids that the frontend has in each shard. It is called once."""
        self._connections, self._lease = connections, lease
        self._writer = HeldBackWriter(connections.store, lease.ids, lease.hurry)

    async def serve(self) -> None:
        """Write what the sources yield, and receive cancels, until cancelled."""
        subscription = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._writer.run(), name="writer")
                subscription = await self._subscribe()
                self._hears_cancels.set()
                await asyncio.get_running_loop().create_future()
        finally:
            if subscription is not None:
                self._connections.subscriptions.unsubscribe(subscription)

    async def _subscribe(self) -> Subscription:
        """Subscribe to the cancels for this frontend. What is missed in a gap comes again with the next heartbeat."""
        channel = self._connections.store.keys.worker_channel(self._lease.id)
        while True:
            with suppress(StoreUnavailable):
                return await self._connections.subscriptions.subscribe(channel, self._on_message, on_gap=lambda: None)
            tasks.check_cancelled()

    def _on_message(self, message: Message) -> None:
        if message["type"] == "cancel":
            self.cancel(message["rid"], CancelMode(message["mode"]))

    async def wait_until_ready(self) -> None:
        """Wait until cancels are heard at once; for at most the time that Redis may take to answer."""
        if not self._hears_cancels.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._connections.store.settings.redis_timeout_secs):
                    await self._hears_cancels.wait()

    def run(self, rid: str, model: str, start: Start, source: Source) -> TrackedAttempt:
        """Run the source of a request that was just started."""
        attempt = TrackedAttempt(rid, start, source, self._writer, self._connections.store.settings)
        self._attempts[rid] = attempt
        span = AttemptSpan(rid, model, self._lease.ids[attempt.sink.shard], start)
        attempt.context.traceparent = span.traceparent
        self._tasks[rid] = asyncio.create_task(self._run(attempt, span), name=f"tracked {rid}")
        return attempt

    async def _run(self, attempt: TrackedAttempt, span: AttemptSpan) -> None:
        ended: Ended | None = None
        try:
            ended = await attempt.run()
        except Exception as failure:
            log.exception("request %s failed because of an internal error", attempt.rid)
            with suppress(StoreError):
                await self._connections.store.fail(attempt.rid, ErrorType.INTERNAL, message_of(failure))
        finally:
            span.end(ended)
            if self._attempts.get(attempt.rid) is attempt:
                del self._attempts[attempt.rid], self._tasks[attempt.rid]

    def cancel(self, rid: str, mode: CancelMode) -> bool:
        """Stop or kill a run. Return False when none of this id is under way."""
        attempt = self._attempts.get(rid)
        if attempt is None:
            return False
        attempt.cancel(mode)
        return True

    def let_go(self, rid: str) -> None:
        """End a run whose request is over for this frontend, without reporting anything."""
        attempt = self._attempts.get(rid)
        if attempt is not None:
            attempt.abandon()

    def check_streams(self, shard: int) -> None:
        """Let each run of the shard check that Redis has its last events before it appends more."""
        for attempt in self._attempts.values():
            if attempt.sink.shard == shard:
                attempt.sink.recheck()

    @property
    def running(self) -> list[str]:
        """Return the ids of what runs here."""
        return list(self._attempts)

    async def wait(self, rid: str, timeout_secs: float) -> None:
        """Wait until a run has ended, for at most `timeout_secs`."""
        task = self._tasks.get(rid)
        if task is not None:
            await asyncio.wait((task,), timeout=timeout_secs)

    async def close(self, timeout_secs: float) -> None:
        """Kill what runs, wait for at most `timeout_secs` until all is reported, and end the rest."""
        for attempt in list(self._attempts.values()):
            attempt.cancel(CancelMode.KILL)
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=timeout_secs)
        await tasks.end(list(self._tasks.values()))
