"""Run a worker: its lease, a queue consumer for each shard, one token writer, and the requests that it handles."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from lifecycle.aio import tasks
from lifecycle.errors import Fenced, StoreError, StoreUnavailable
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.execution.concurrency_tuner import ConcurrencyTuner
from lifecycle.execution.corrections import Corrections
from lifecycle.execution.declarations import accepted_parameters, max_model_lens
from lifecycle.execution.engine import Engine
from lifecycle.execution.engine_health import EngineHealth
from lifecycle.execution.failures import location_of
from lifecycle.execution.hosted_engine import HostedEngine
from lifecycle.execution.offered_endpoints import offered_endpoints
from lifecycle.execution.queue_consumer import QueueConsumer
from lifecycle.execution.running import RunningRequests
from lifecycle.replica.lease import Lease
from lifecycle.replica.loop_monitor import LoopMonitor
from lifecycle.replica.reaper import Reaper
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.instructions import Instruction
from lifecycle.store.permissions import check_permissions
from lifecycle.store.pubsub import Message
from lifecycle.store.server_info import warn_of_eviction
from lifecycle.store.transitions import Store
from lifecycle.tokens.writer import TokenWriter
from lifecycle.types import CancelMode, ReplicaAction, ReplicaState, Role

log = logging.getLogger(__name__)

_CLOSING_SECS = 5.0  # for the engine's aclose()


class Worker:
    """Serve one or more models with one engine, from `run()` to the end of a drain.

    A worker whose lease in a shard has expired abandons its requests of that shard, and comes back there under a new
    id. It is the holder of its leases: `held`, `about` and the `on_…` methods are called by the heartbeat, see
    `shard_lease.Holder`. Corrections has those that handle what the worker and Redis know differently.
    """

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        model: str | Sequence[str],
        engine: Engine,
        on_blocked_heartbeat: Callable[[], None] | None = None,
        on_drain: Callable[[], None] | None = None,
    ) -> None:
        """Prepare the worker; `run()` joins the cluster and then starts the engine. The worker closes it at its end.

        `engine` is an engine, or a HostedEngine that `run()` is to load. `model` is the name of one model, or the names
        of several, which share the engine and its concurrency. `on_blocked_heartbeat` is called by another thread with
        each heartbeat that is due while the engine blocks the event loop. `on_drain` is called when a drain begins.

        Raise EngineLoadError when the engine's declarations are not valid.
        """
        self.settings = settings
        self.models = (model,) if isinstance(model, str) else tuple(dict.fromkeys(model))
        self._store = connections.store
        self._connections = connections
        self._engine = engine if isinstance(engine, HostedEngine) else HostedEngine.of(engine)
        self._reaper = Reaper(self._store)
        self._slots = ConcurrencySlots(settings.concurrency_min if settings.is_auto else settings.fixed_concurrency)
        self._health = EngineHealth(
            self._engine,
            self._slots,
            interval_secs=settings.heartbeat_secs,
            timeout_secs=settings.lease_secs,
            announce=self._announce,
        )
        self._on_drain = on_drain
        self._draining = asyncio.Event()
        self._start_over = asyncio.Event()  # the engine has started, or it never will
        self._started = False
        self._failure: Exception | None = None  # of the engine's start
        self.unended: list[str] = []  # which calls of the engine run on although `run()` has ended, as "request ID"
        self._lease = Lease(self._store, Role.WORKER, self, self.models, self._reaper.sweep_soon)
        self._monitor = LoopMonitor(settings, self._lease, self._blocked_limit_secs, on_blocked_heartbeat)
        self._writer = TokenWriter(self._store, self._lease.ids, self._lease.hurry)
        self._running = RunningRequests(
            self._store, self._engine, self._health, self._slots, self._lease, self._writer, self._served
        )
        corrections = Corrections(self._store, self._lease, self._running)
        self.on_pending_cancellations = corrections.cancel
        self.on_not_in_redis = corrections.abandon
        self.on_not_held_locally = corrections.requeue
        self.on_data_lost = corrections.report_ends
        self._tuner = ConcurrencyTuner(settings, self._slots, self._engine, self._running.current_attempts)
        self._consumers = [
            QueueConsumer(self._store, shard, self.models, lease, self._slots, self._running)
            for shard, lease in enumerate(self._lease.shards)
        ]

    @property
    def id(self) -> str:
        """Return the worker's replica id."""
        return self._lease.id

    @property
    def state(self) -> ReplicaState:
        """Return the state that the worker announces with its heartbeats."""
        if self._draining.is_set():
            return ReplicaState.DRAINING
        if not self._started:
            return ReplicaState.STARTING
        if self._slots.paused:
            return ReplicaState.PAUSED
        return ReplicaState.READY if self._health.healthy else ReplicaState.UNHEALTHY

    @property
    def requests(self) -> list[str]:
        """Return the ids of the requests that the worker handles."""
        return list(self._running)

    def drain(self) -> None:
        """Take no new requests, let running ones finish within DRAIN_TIMEOUT_SECS, move or fail the rest, then end."""
        if self._on_drain is not None and not self._draining.is_set():
            self._on_drain()
        self._draining.set()
        self._start_over.set()

    async def run(self, *, retry_for_secs: float = 10.0) -> None:
        """Join the cluster, start the engine, and serve until the end of a drain.

        No call of the engine is waited for without a limit: those that do not end are in `unended` afterwards. They
        run on, since Python cannot end them.

        Raise StoreUnavailable when Redis does not answer within `retry_for_secs`, StoreError when it forbids commands
        that a worker needs, ConfigurationConflict when the common settings differ from the cluster's, and
        EngineLoadError or EngineStartError, after leaving the cluster, when the engine cannot be started.
        """
        try:
            await check_permissions(self._store, Role.WORKER, retry_for_secs)
            await self._lease.join(retry_for_secs)
            await warn_of_eviction(self._store)
            await self._work()
        finally:
            await self._close_engine()
            if self.unended:
                log.error("the engine of model %s does not end: %s", ", ".join(self.models), ", ".join(self.unended))
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        """Run the engine and serve until the end of a drain."""
        monitor = asyncio.create_task(self._monitor.run(), name="loop monitor")
        engine = asyncio.create_task(self._run_engine(), name="engine")
        try:
            await self._serve()
        finally:
            self.unended += await self._end_engine(engine)
            self.unended += [f"request {rid}" for rid in await self._running.end()]
            await tasks.end((monitor,))

    async def _end_engine(self, engine: asyncio.Task[None]) -> list[str]:
        """Cancel the calls of the engine that serve no request, all at once, and return those that do not end."""
        calls = {engine: "startup()", self._health.probing: "health()", self._tuner.adapting: "waiting()"}
        unended = await tasks.end([call for call in calls if call is not None], self.settings.kill_grace_secs)
        return [name for call, name in calls.items() if call in unended]

    async def _run_engine(self) -> None:
        """Load and start the engine, then watch its health. If that fails, drain; `run` raises the failure."""
        try:
            await self._start_engine()
            await self._health.run()
        except Exception as failure:
            self._failure = failure
            self.drain()

    async def _start_engine(self) -> None:
        log.info("worker %s loads the engine of model %s", self.id, ", ".join(self.models))
        await self._engine.start()
        self._tuner.begin()
        self._started = True
        await self._announce()
        self._start_over.set()
        log.info("worker %s serves model %s with %d slots", self.id, ", ".join(self.models), self._slots.size)

    def _served(self, secs: float) -> None:
        self._health.served()
        self._tuner.note_first_event(secs)

    async def _close_engine(self) -> None:
        """Close the engine, within 5 seconds. Raise whatever its `aclose()` raises, unless its start has failed."""
        closing = asyncio.create_task(self._engine.aclose(), name="engine close")
        try:
            await asyncio.wait((closing,), timeout=_CLOSING_SECS)
        finally:
            if await tasks.end((closing,), self.settings.kill_grace_secs):
                self.unended.append("aclose()")
        failure = closing.exception() if closing.done() and not closing.cancelled() else None
        if failure is not None and self._failure is None:
            raise failure
        if failure is not None:
            log.warning("the engine's aclose() failed after its start had failed: %s", location_of(failure))

    def _blocked_limit_secs(self) -> float:
        """Return how long the event loop may be blocked until the lease is given up.

        There is no limit while the engine starts: nobody waits for a worker that has taken nothing yet.
        """
        return self.settings.blocked_loop_secs if self._start_over.is_set() else math.inf

    async def _serve(self) -> None:
        """Serve until the end of a drain."""
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(self._connections.subscriptions.run(), name="subscriptions"),
                    group.create_task(self._reaper.run(), name="reaper"),
                    group.create_task(self._lease.run(), name="lease"),
                    group.create_task(self._writer.run(), name="writer"),
                ]
                await self._subscribe()
                await self._start_over.wait()
                taking = self._consumers if self._started else []
                consuming = [group.create_task(consumer.run(), name="queue consumer") for consumer in taking]
                await self._draining.wait()
                await tasks.end(consuming)
                await self._finish_up()
                await tasks.end(background)
        finally:
            for consumer in self._consumers:
                await consumer.aclose()

    async def _subscribe(self) -> None:
        """Subscribe to the cancels, bells and instructions for this worker, before any request is taken.

        It gives up when the worker is asked to drain meanwhile. A gap in the subscription is harmless: the next
        heartbeat repeats each cancel that is not confirmed and each instruction that was not followed, and says whether
        something is queued.
        """
        channel = self._store.keys.worker_channel(self.id)
        while not self._draining.is_set():
            with suppress(StoreUnavailable):
                await self._connections.subscriptions.subscribe(channel, self._on_message, on_gap=lambda: None)
                return
            tasks.check_cancelled()

    def _on_message(self, message: Message) -> None:
        if message["type"] == "cancel":
            rid, mode = message["rid"], CancelMode(message["mode"])
            self._running.cancel(rid, mode)
            self._consumers[self._store.keys.shard_of(rid)].cancel(rid, mode)
        elif message["type"] == "instruction":
            self._lease.hurry()
        elif message["type"] == "bell":
            prefixes = self._store.keys.prefixes
            if message["prefix"] in prefixes:
                self._consumers[prefixes.index(message["prefix"])].ring()

    async def _announce(self) -> None:
        """Tell the cluster at once about a change of the state. If Redis does not take it, the next heartbeat does."""
        with suppress(StoreError):
            await self._lease.announce()

    async def _finish_up(self) -> None:
        """Release what was taken only now, wait for what runs, move or fail the rest, and leave the cluster."""
        await self._announce()
        self._lease.hurry()  # so that every shard knows too that it drains
        releasing = [asyncio.create_task(consumer.release(), name="release") for consumer in self._consumers]
        await asyncio.wait(releasing, timeout=2 * self.settings.redis_timeout_secs)
        await tasks.end(releasing)  # the reaper requeues what a shard that is away still holds
        await asyncio.gather(*releasing, return_exceptions=True)
        await self._running.wait(self.settings.drain_timeout_secs)
        await self._running.move_or_fail_all()
        await self._running.wait(self.settings.kill_grace_secs)
        await self._lease.leave(self._reaper.sweep)

    async def leave_through(self, store: Store) -> None:
        """Leave the cluster over a connection of another thread, because the engine blocks the event loop.

        Requests that another worker can begin anew or continue are queued again, and the others fail as `worker_lost`.
        Raises StoreUnavailable.
        """
        store.settings, store.common = self._store.settings, self._store.common
        await self._lease.leave_through(store, Reaper(store).sweep)

    # The holder of the lease

    def held(self, shard: int) -> Collection[str]:
        """Return the ids of the shard's requests that run here."""
        return self._running.held(shard)

    def about(self) -> dict[str, Any]:
        """Return what a heartbeat tells: the state, models, slots, stuck engines, and the failure of the engine.

        `accepts` lists the gated parameters that its engine takes, `["*"]` all of them. `endpoints` has the endpoints
        that it offers, each with `native` or `translated`. `max_model_len` has the length in tokens of each model whose
        length is known, for `GET /v1/models`.
        """
        return {
            "state": self.state,
            "models": list(self.models),
            "accepts": accepted_parameters(self._engine),
            "endpoints": dict(offered_endpoints(self._engine)),
            "max_model_len": max_model_lens(self._engine, self.models),
            "concurrency": self._slots.size,
            "stuck": self._running.stuck,
        } | self._health.about()

    def on_instruction(self, instruction: Instruction) -> None:
        """Drain, pause or resume, as an operator wants it."""
        log.info("worker %s is told to %s by %s", self.id, instruction.action.value, instruction.by)
        if instruction.action is ReplicaAction.DRAIN:
            self.drain()
        else:
            self._slots.pause(instruction.action is ReplicaAction.PAUSE)

    def on_fenced(self, shard: int, expired: str, cause: Fenced) -> None:
        """End the engines of the shard's requests: they have ended, or are another worker's. No outcome is reported."""
        log.error("%s is fenced in shard %d; it ends the engines of the shard's requests: %s", expired, shard, cause)
        self._running.abandon(shard)

    async def on_new_epoch(self, shard: int) -> None:
        """Take from a shard that has lost its data: it does not know any more that this worker waits."""
        self._consumers[shard].ring()
