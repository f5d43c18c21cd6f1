"""Requests that an engine cannot serve or does not accept go to another worker, or fail when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, cast

import pytest

from lifecycle.errors import NotConnected, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine_health import EngineHealth
from lifecycle.execution.hand_over import HandOver
from lifecycle.execution.hosted_engine import HostedEngine
from lifecycle.execution.worker import Worker
from lifecycle.replica.reaper import Reaper
from lifecycle.settings import Settings
from lifecycle.store.results import QueuedRequest
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import LivingWorker, workers_of
from lifecycle.types import ReplicaState, RequestRecord, Role
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.unit.world import MODEL, World
from tests.waiting import wait_until
from tests.workers import serving


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Leases that outlast the test, and heartbeats that are frequent."""
    return make_settings(lease_secs=60.0, heartbeat_secs=0.1, sweep_secs=0.1, concurrency=2, drain_timeout_secs=0.1)


@pytest.fixture
async def world(settings: Settings, make_store: MakeStore) -> World:
    """A world without workers of its own."""
    return await World.without_workers(make_store(settings))


class Engine:
    """An engine that raises what the test says, or answers with its name."""

    def __init__(
        self, name: str, failure: Callable[[], Exception] | None = None, accepts: Collection[str] = ()
    ) -> None:
        self.name = name
        self.accepts = accepts
        self.failure = failure
        self.calls = 0
        self.probes = 0

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        self.calls += 1
        if self.failure is not None:
            raise self.failure()
        yield self.name

    async def health(self) -> None:
        self.probes += 1
        if self.failure is not None and self.calls:
            raise self.failure()


async def _ended(world: World, rid: str = "r") -> RequestRecord:
    async def has_ended() -> bool:
        return (await world.record(rid)).status.terminal

    await wait_until(has_ended, what=f"the end of {rid}")
    return await world.record(rid)


async def _find(world: World, worker: Worker) -> LivingWorker:
    workers = workers_of(await world.store.roster(), world.store.settings.lease_secs)
    return next(living for living in workers if living.id == worker.id)


async def _until_state(world: World, worker: Worker, state: ReplicaState) -> LivingWorker:
    async def reached() -> bool:
        return (await _find(world, worker)).state == state

    await wait_until(reached, what=f"a worker that is {state}")
    return await _find(world, worker)


class Health:
    """The health of an engine that cannot serve."""

    probe_in_secs = 1.0

    async def fail(self, message: str) -> None:
        """Note nothing."""


async def test_a_worker_under_its_next_id_in_a_shard_is_not_another_worker(world: World) -> None:
    about = {"state": ReplicaState.DRAINING, "models": [MODEL]}
    await join(world.store, "worker-a", Role.WORKER, about, [MODEL])
    await world.store.reconcile_shard(0, "worker-a~1", Role.WORKER, models=[MODEL])
    await world.admit()
    run = await world.take("worker-a~1")
    hand_over = HandOver(world.store, cast(EngineHealth, Health()))
    await hand_over.requeue_or_fail(run, "worker-a~1", Unavailable("the GPU is lost"))
    record = await world.record()
    assert (record.status, record.error_message) == ("failed", "the GPU is lost")


async def test_a_request_that_an_engine_cannot_serve_goes_to_another_worker(settings: Settings, world: World) -> None:
    sick = Engine("sick", lambda: Unavailable("the GPU is lost"))
    async with serving(settings, sick) as first, serving(settings, Engine("well")):
        # One request after the other, until one has met the sick engine; its worker takes none after that.
        for number in range(100):
            await world.admit(f"r{number}")
            record = await _ended(world, f"r{number}")
            assert record.status == "completed"
            if sick.calls:
                break
        assert (record.attempt, sick.calls) == (2, 1)
        found = await _until_state(world, first, ReplicaState.UNHEALTHY)
        assert found.error == "the GPU is lost"
        for number in range(10):
            await world.admit(f"s{number}")
            assert (await _ended(world, f"s{number}")).attempt == 1
        assert sick.calls == 1


async def test_a_worker_comes_back_by_itself(settings: Settings, world: World) -> None:
    engine = Engine("well", lambda: Unavailable("starting up"))
    async with serving(settings, engine) as worker:
        await world.admit("r")
        await _ended(world)
        await _until_state(world, worker, ReplicaState.UNHEALTHY)
        engine.failure = None
        await _until_state(world, worker, ReplicaState.READY)
        await world.admit("s")
        assert (await _ended(world, "s")).status == "completed"


async def test_a_request_fails_at_once_when_no_worker_is_healthy(settings: Settings, world: World) -> None:
    patient = settings.model_copy(update={"sweep_secs": 3600.0})  # nothing but the worker can end the request
    await world.share(patient)
    failure = Unavailable("the GPU is lost", retry_after_secs=17)
    async with serving(patient, Engine("sick", lambda: failure)):
        await world.admit()
        record = await _ended(world)
    assert (record.status, record.error_type, record.error_message) == ("failed", "unavailable", "the GPU is lost")
    assert record.error_detail is not None
    assert (record.error_detail.status, record.error_detail.retry_after_secs) == (503, 17)


async def test_a_worker_that_came_back_is_no_other_worker(settings: Settings, world: World) -> None:
    """Its lease in the shard has expired, so the shard knows it by another id than the list. It is paused too."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def sick(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        entered.set()
        await leave.wait()
        raise Unavailable("the GPU is lost")
        yield "never"

    async with serving(settings, sick) as worker:
        await wait_until(lambda: worker.state == ReplicaState.READY, what="a ready worker")
        await world.store.expire(0, worker.id)
        await wait_until(lambda: worker._lease.ids[0] != worker.id, what="another id")
        await world.admit()
        await entered.wait()
        worker._slots.pause(True)
        leave.set()
        assert (await _ended(world)).error_message == "the GPU is lost"


async def test_what_waits_for_unhealthy_workers_only_is_ended_by_a_sweep(settings: Settings, world: World) -> None:
    patient = settings.model_copy(update={"sweep_secs": 3600.0})
    await world.share(patient)
    engine = Engine("sick", lambda: Unavailable("the GPU is lost"))
    async with serving(patient, engine) as worker:
        await world.admit("r")
        await _ended(world)
        await _until_state(world, worker, ReplicaState.UNHEALTHY)
        await world.admit("s")
        await Reaper(world.store).sweep(0)
        record = await _ended(world, "s")
    assert (record.error_type, record.error_message) == ("unavailable", "the GPU is lost")
    assert record.error_detail is not None
    assert record.error_detail.status == 503
    assert engine.calls == 1


async def test_a_request_fails_once_its_attempts_are_used_up(settings: Settings, world: World) -> None:
    """Each worker recovers at once, so there is always a healthy one."""
    unstable = settings.model_copy(update={"max_attempts": 3})
    await world.share(unstable)
    engines = [Engine(name, lambda: Unavailable("too busy")) for name in "ab"]
    for engine in engines:
        engine.health = _healthy  # type: ignore[method-assign]
    async with serving(unstable, engines[0]), serving(unstable, engines[1]):
        await world.admit()
        record = await _ended(world)
    assert (record.error_type, record.error_message) == ("unavailable", "too busy")
    assert record.attempt <= 3


async def _healthy() -> None:
    """Report that all is well."""


async def test_an_upstream_that_is_not_reached_uses_up_no_attempt(settings: Settings, world: World) -> None:
    once = settings.model_copy(update={"max_attempts": 1})
    await world.share(once)
    sick = Engine("sick", lambda: NotConnected("cannot connect to the upstream"))
    async with serving(once, sick) as worker, serving(once, Engine("well")):
        for number in range(100):
            await world.admit(f"r{number}")
            assert (await _ended(world, f"r{number}")).status == "completed"
            if sick.calls:
                break
        assert (await _find(world, worker)).state == ReplicaState.UNHEALTHY


async def test_an_event_that_was_sent_keeps_the_request_where_it_is(settings: Settings, world: World) -> None:
    async def breaks_off(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "one"
        raise Unavailable("the connection broke")

    async with serving(settings, breaks_off), serving(settings, breaks_off):
        await world.admit()
        record = await _ended(world)
    assert (record.attempt, record.error_type, record.output_tokens) == (1, "unavailable", 1)


async def test_a_cancel_wins_against_a_hand_over(settings: Settings, world: World) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def fails_late(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        entered.set()
        try:
            await leave.wait()
        except asyncio.CancelledError:
            raise Unavailable("too late") from None
        yield "never"

    async with serving(settings, fails_late), serving(settings, fails_late):
        await world.admit()
        await entered.wait()
        await world.cancel()
        assert (await _ended(world)).status == "cancelled"


async def test_a_worker_hands_on_what_its_engine_does_not_take(settings: Settings, world: World) -> None:
    plain, full = Engine("plain"), Engine("full", accepts=["tools"])
    async with serving(settings, plain) as worker, serving(settings, full):
        for number in range(10):
            await world.admit(f"r{number}", needs=("tools",))
            record = await _ended(world, f"r{number}")
            assert (record.status, record.attempt) == ("completed", 1)
        assert (await _find(world, worker)).state == ReplicaState.READY
    assert (plain.calls, full.calls) == (0, 10)


async def test_an_engine_that_is_loaded_late_takes_what_it_declares(settings: Settings, world: World) -> None:
    engine = Engine("full", accepts=["tools"])
    async with serving(settings, cast(Any, HostedEngine(lambda: engine))):
        await world.admit(needs=("tools",))
        record = await _ended(world)
    assert (record.status, record.attempt) == ("completed", 1)


async def test_what_no_living_worker_takes_is_refused(settings: Settings, world: World) -> None:
    plain = Engine("plain", accepts=["tools"])
    async with serving(settings, plain), serving(settings, plain):
        await world.admit(needs=("tools", "n"))
        record = await _ended(world)
    assert (record.status, record.error_type) == ("failed", "validation")
    assert record.error_detail is not None
    assert (record.error_detail.status, record.error_detail.code) == (400, "unsupported_parameter")
    assert record.error_detail.param == "n"
    assert f"The model {MODEL!r} does not support 'n'" in (record.error_message or "")
    assert plain.calls == 0


async def test_what_only_unhealthy_workers_take_is_told_as_unavailable(settings: Settings, world: World) -> None:
    full = Engine("full", lambda: Unavailable("the GPU is lost"), accepts=["tools"])
    async with serving(settings, full) as worker:
        await world.admit("r", needs=("tools",))
        await _ended(world)
        await _until_state(world, worker, ReplicaState.UNHEALTHY)
        async with serving(settings, Engine("plain")):
            await world.admit("s", needs=("tools",))
            record = await _ended(world, "s")
    assert (record.error_type, record.error_message) == ("unavailable", "the GPU is lost")


async def test_a_busy_worker_gets_what_others_hand_on_when_it_has_room(settings: Settings, world: World) -> None:
    release = asyncio.Event()

    async def busy(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        await release.wait()
        yield "done"

    busy.accepts = True  # type: ignore[attr-defined]
    narrow = settings.model_copy(update={"concurrency": 1})
    async with serving(narrow, busy), serving(settings, Engine("plain")):
        await world.admit("r", needs=("tools",))

        async def runs() -> bool:
            return (await world.record("r")).status == "running"

        await wait_until(runs, what="a busy worker")
        await world.admit("s", needs=("tools",))
        release.set()
        assert (await _ended(world, "s")).status == "completed"
        await _ended(world, "r")


async def test_many_requests_are_handed_on_with_one_look_at_the_list(
    settings: Settings, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker takes nothing meanwhile, so the number of calls must not grow with that of the requests."""
    await join(world.store, "w2", Role.WORKER, {"accepts": ["tools"], "models": [MODEL]}, [MODEL])
    read, published = 0, 0
    command, listed = Store.command, Store.listed

    async def counted_command(self: Store, *args: Any, **options: Any) -> Any:
        nonlocal published
        published += args[0] == "PUBLISH"
        return await command(self, *args, **options)

    async def counted_listed(self: Store) -> Any:
        nonlocal read
        read += 1
        return await listed(self)

    monkeypatch.setattr(Store, "command", counted_command)
    monkeypatch.setattr(Store, "listed", counted_listed)
    found = [QueuedRequest(f"r{number}", MODEL, "chat_completions", ("tools",)) for number in range(50)]
    await HandOver(world.store, cast(Any, None)).ring_or_fail(found, "w3")
    assert (read, published) == (1, 1)


async def test_nothing_is_refused_while_a_list_that_was_lost_is_not_restored(settings: Settings, world: World) -> None:
    store, control = world.store, world.store.keys.control
    await world.share(settings.model_copy(update={"heartbeat_secs": 0.5}))
    await store.command("DEL", *[control + name for name in ("roster", "workers", "changes")])
    await join(store, "w3", Role.WORKER, {"models": [MODEL]}, [MODEL])  # one that takes tools is still to come
    await world.admit(needs=("tools",))
    found = [QueuedRequest("r", MODEL, "chat_completions", ("tools",))]
    hand_over = HandOver(store, cast(Any, None))
    await hand_over.ring_or_fail(found, "w3")
    assert (await world.record()).status == "queued"

    async def is_refused() -> bool:
        await hand_over.ring_or_fail(found, "w3")
        return (await world.record()).error_type == "validation"

    await wait_until(is_refused, what="a refusal")
