"""The worker: a lease, an intake for each shard, one writer for all tokens, and an attempt for each request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreError, StoreUnavailable
from lifecycle.execution.attempt import Attempt
from lifecycle.execution.engine import Engine, close_engine, is_resumable
from lifecycle.execution.queue_consumer import Delivery, QueueConsumer, Slots
from lifecycle.replica.lease import Lease
from lifecycle.replica.reaper import Reaper
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.pubsub import Message, Subscription
from lifecycle.store.results import Drop, Ended, Outcome, PendingCancellation, Start
from lifecycle.store.server_info import warn_of_eviction
from lifecycle.telemetry import tracing
from lifecycle.telemetry.tracing import AttemptSpan
from lifecycle.tokens.history import read_emitted
from lifecycle.tokens.writer import TokenWriter
from lifecycle.types import CancelMode, ErrorType, Role

log = logging.getLogger(__name__)


class Worker:
    """`run()` until `drain()` was called and everything has ended or moved. A fenced worker comes back by itself."""

    def __init__(self, settings: Settings, connections: Connections, model: str, engine: Engine) -> None:
        self.settings = settings
        self.model = model
        self._store = connections.store
        self._connections = connections
        self._engine = engine
        self._reaper = Reaper(self._store)
        self._attempts: dict[str, Attempt] = {}  # the latest of each request
        self._engines: set[Attempt] = set()  # all whose engine has not ended
        self._held: list[set[str]] = [set() for _ in range(settings.shards)]
        self._handling: dict[str, dict[Delivery, set[CancelMode]]] = {}  # by request: the cancels that came meanwhile
        self._put_off: set[Delivery] = set()  # delivered again while it was being handled
        self._slots = Slots(settings.concurrency)
        self._intakes: list[QueueConsumer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._new_identity()

    def _new_identity(self) -> None:
        self._lease = Lease(self._store, Role.WORKER, self, [self.model])
        self._writer = TokenWriter(self._store, self._lease.id)

    @property
    def id(self) -> str:
        return self._lease.id

    def drain(self) -> None:
        """Take nothing new, let what runs finish within DRAIN_TIMEOUT_SECS, move or fail the rest, then end."""
        self._draining.set()

    async def run(self, *, retry_for_secs: float = 10.0) -> None:
        """Raises StoreUnavailable or ConfigurationConflict when it cannot join at first."""
        await self._lease.join(retry_for_secs)
        await warn_of_eviction(self._store)
        log.info("worker %s serves %s with %d slots", self.id, self.model, self.settings.concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                subscriptions = group.create_task(self._connections.subscriptions.run(), name="subscriptions")
                reaper = group.create_task(self._reaper.run(), name="reaper")
                while not await self._serve() and await self._come_back():
                    pass
                await tasks.end((reaper, subscriptions, *self._tasks))
        finally:
            await close_engine(self._engine)

    async def _serve(self) -> bool:
        """Work under one identity. True when drained, False when fenced."""
        intakes = self._intakes = [
            QueueConsumer(self._store, blocking, shard, self.model, self.id, self._slots, self._launch)
            for shard, blocking in enumerate(self._connections.blocking)
        ]
        listening: Subscription | None = None
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(self._lease.run(), name="lease"),
                    group.create_task(self._writer.run(), name="writer"),
                ]
                listening = await self._listen()
                taking = [group.create_task(intake.run(), name="intake") for intake in intakes]
                await self._draining.wait()
                await tasks.end(taking)
                await self._finish_up(intakes)
                await tasks.end(background)
        except* Fenced as fenced:
            cause = fenced.exceptions[0]
            log.error("fenced: %s; every engine ends, and this worker comes back under a new id", cause)
            await self._abandon()
        else:
            return True
        finally:
            if listening is not None:
                self._connections.subscriptions.unsubscribe(listening)
        return self._draining.is_set()

    async def _listen(self) -> Subscription | None:
        """Hear the cancels for this identity from now on, before anything is taken. None when told to drain meanwhile.

        A gap needs no reading: what was ordered in it comes again with the next heartbeat.
        """
        channel = self._store.keys.worker_channel(self.id)
        while not self._draining.is_set():
            with suppress(StoreUnavailable):
                return await self._connections.subscriptions.subscribe(channel, self._on_message, on_gap=lambda: None)
            tasks.check_cancelled()
        return None

    def _on_message(self, message: Message) -> None:
        if message["type"] == "cancel":
            self._cancel(message["rid"], CancelMode(message["mode"]))

    def _cancel(self, rid: str, mode: CancelMode) -> None:
        attempt = self._attempts.get(rid)
        if attempt is not None:
            attempt.cancel(mode)
        for missed in self._handling.get(rid, {}).values():  # the reply to their start may be on its way
            missed.add(mode)

    async def _come_back(self) -> bool:
        """Join under a new id, however long Redis is away. False when told to drain meanwhile: nothing is held."""
        self._new_identity()
        heartbeat_secs = self.settings.heartbeat_secs
        while not self._draining.is_set():
            with suppress(StoreError):
                await self._lease.join(heartbeat_secs)
                return True
            tasks.check_cancelled()
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat_secs):
                    await self._draining.wait()
        return False

    # Requests

    def _launch(self, delivery: Delivery) -> bool:
        deliveries = self._handling.setdefault(delivery.rid, {})
        if delivery in deliveries:
            self._put_off.add(delivery)
            return False
        deliveries[delivery] = missed = set[CancelMode]()
        task = asyncio.create_task(self._handle(delivery, missed), name=f"request {delivery.rid}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _handle(self, delivery: Delivery, missed: set[CancelMode]) -> None:
        """One delivery from start to end; owned by `_tasks`, awaited when draining or fenced."""
        rid = delivery.rid
        try:
            await self._work(delivery, missed)
        except StoreUnavailable as failure:
            log.warning("%s could not be started: %s", rid, failure)
            self._intakes[self._store.keys.shard_of(rid)].recheck()
        except Fenced:
            log.warning("%s was not started: this worker is fenced", rid)
        except Exception:
            log.exception("%s failed in its worker", rid)
        finally:
            del self._handling[rid][delivery]
            if not self._handling[rid]:
                del self._handling[rid]
            self._slots.release()
            if delivery in self._put_off:
                self._put_off.discard(delivery)
                self._intakes[self._store.keys.shard_of(rid)].recheck()

    async def _work(self, delivery: Delivery, missed: set[CancelMode]) -> None:
        """`missed`: cancels that come before there is anything to cancel."""
        rid = delivery.rid
        start = await self._store.start(
            rid,
            self.id,
            delivery.queue,
            self.model,
            delivery.entry,
            resumable=is_resumable(self._engine),
            retry_for_secs=self.settings.lease_secs,
        )
        if isinstance(start, Drop):
            log.debug("%s is not started: %s", rid, start.why)
            return
        earlier = self._attempts.get(rid)
        if earlier is not None:
            # It was queued anew behind that attempt's back, so nothing of it counts; its engine may take its time.
            log.warning("%s is started again while its attempt %d runs here", rid, earlier.attempt)
            earlier.abandon()
        emitted = await self._emitted(rid, start)
        if emitted is None:
            return
        attempt = Attempt(rid, start, self._engine, self._writer, self.settings, emitted)
        for mode in (*missed, start.cancel_mode):
            if mode:
                attempt.cancel(mode)
        await self._run(attempt, start)

    async def _run(self, attempt: Attempt, start: Start) -> None:
        """Known meanwhile as what runs of its request; an earlier attempt that does not end is only waited for."""
        rid, held, context = attempt.rid, self._held[self._store.keys.shard_of(attempt.rid)], attempt.context
        self._attempts[rid] = attempt
        self._engines.add(attempt)
        held.add(rid)
        span = AttemptSpan(rid, self.model, self.id, start)
        context.traceparent = span.traceparent
        if tracing.is_on():
            context.add_listener(lambda: span.cancelled("kill" if context.is_killed else "stop"))
        ended: Ended | None = None
        try:
            ended = await attempt.run()
        finally:
            span.end(ended)
            self._engines.discard(attempt)
            if self._attempts.get(rid) is attempt:
                del self._attempts[rid]
                held.discard(rid)

    async def _emitted(self, rid: str, start: Start) -> list[str] | None:
        """What earlier attempts have left. None when Redis has lost some of it; the request has then failed."""
        if start.base == 0:
            return []
        retry_for_secs = self.settings.lease_secs
        emitted = await read_emitted(self._store, rid, start.base, retry_for_secs)
        if emitted is None:
            lost = Outcome("failed", ErrorType.STATE_LOST, "Redis lost a part of the token stream")
            await self._store.finish(rid, self.id, start.attempt, lost, start.base, retry_for_secs=retry_for_secs)
        return emitted

    async def _finish_up(self, intakes: list[QueueConsumer]) -> None:
        """Drain: what is left at the deadline moves to another worker if it can, or fails."""
        with suppress(StoreError):
            await self._lease.heartbeat()
        giving_back = [asyncio.create_task(intake.release_pending(), name="give back") for intake in intakes]
        await asyncio.wait(giving_back, timeout=2 * self.settings.redis_timeout_secs)
        await tasks.end(giving_back)  # what a shard that is away keeps is the reaper's
        await asyncio.gather(*giving_back, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.settings.drain_timeout_secs)
        for attempt in list(self._attempts.values()):
            if attempt.context.is_stopped or not attempt.can_move or not await self._move(attempt):
                attempt.fail(ErrorType.WORKER_LOST, "The worker shut down before the generation completed")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.settings.kill_grace_secs)
        await tasks.end(self._tasks)
        with suppress(StoreError):
            await self._reaper.sweep(leaving=self.id)

    async def _move(self, attempt: Attempt) -> bool:
        with suppress(StoreError):
            if await self._store.requeue(attempt.rid, self.id, attempt=attempt.attempt) in ("requeued", "ended"):
                attempt.abandon()
                return True
        return False

    async def _abandon(self) -> None:
        """Fenced: nothing of ours can be written any more, so the engines only cost."""
        for attempt in list(self._attempts.values()):
            attempt.abandon()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.settings.kill_grace_secs)

    # The lease's holder

    def held(self, shard: int) -> Collection[str]:
        return self._held[shard]

    def about(self) -> dict[str, Any]:
        return {
            "state": "draining" if self._draining.is_set() else "ready",
            "models": [self.model],
            "concurrency": self.settings.concurrency,
            "stuck": sum(attempt.stuck for attempt in self._engines),
        }

    async def on_pending_cancellations(self, orders: Sequence[PendingCancellation]) -> None:
        for order in orders:
            attempt = self._attempts.get(order.rid)
            if attempt is not None:
                attempt.cancel(order.mode)
            elif order.rid not in self._handling:
                with self._apart(order.rid):
                    await self._confirm_unknown(order.rid)

    async def _confirm_unknown(self, rid: str) -> None:
        """Nothing of it runs here: a report says so, which confirms the cancel and settles the order."""
        record = await self._store.read(rid)
        attempt = record.attempt if record is not None else 0
        nothing = Outcome("cancelled", ErrorType.CANCELLED, "cancelled")
        await self._store.finish(rid, self.id, attempt, nothing, 0)

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        """Redis does not count these as ours: ended, moved, or forgotten with its data."""
        for rid in rids:
            attempt = self._attempts.get(rid)
            if attempt is not None:
                attempt.abandon()

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        """Ours by Redis's word, and not running: the reply to our start was lost. Another try is due."""
        for rid in rids:
            if rid in self._attempts or rid in self._handling:
                continue
            with self._apart(rid):
                record = await self._store.read(rid)
                await self._store.requeue(rid, self.id, attempt=record.attempt if record is not None else 0)

    @contextmanager
    def _apart(self, rid: str) -> Iterator[None]:
        """What Redis refuses for one request must not keep the others waiting, heartbeat after heartbeat."""
        try:
            yield
        except RedisError:
            log.exception("%s could not be settled", rid)

    async def on_new_epoch(self, shard: int) -> None:
        with suppress(RedisError, OSError):  # the intake then finds them gone itself
            await self._intakes[shard].create_groups()
