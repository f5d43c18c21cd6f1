"""Let a worker without a free slot move what it runs for a better request, and see what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.execution.preemption import MOST_PREEMPTIONS
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings
from lifecycle.store.results import Taken
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, RequestRecord, Role
from tests.admitting import admit
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.waiting import wait_until
from tests.workers import serving


class Gated:
    """An engine whose requests yield a word at once and another when they are released. It can resume."""

    resumable = True

    def __init__(self) -> None:
        self.released: set[str] = set()
        self.changed = asyncio.Condition()

    async def release(self, *rids: str) -> None:
        async with self.changed:
            self.released.update(rids)
            self.changed.notify_all()

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        if not context.emitted:
            yield "one "
        async with self.changed:
            await self.changed.wait_for(lambda: context.id in self.released or context.is_stopped)
        yield "two"


class Scene:
    """A store with a frontend, and the engine of a worker with one slot or more."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.engine = Gated()

    async def open(self) -> None:
        await join(self.store, "f0", Role.FRONTEND, {}, [])

    async def admit(self, rid: str, priority: int) -> None:
        await admit(self.store, rid, priority=priority, on_disconnect="continue")

    async def record(self, rid: str) -> RequestRecord:
        record = await self.store.read(rid)
        assert record is not None
        return record

    async def reaches(self, rid: str, status: str, tokens: int = 0) -> RequestRecord:
        async def reached() -> RequestRecord | None:
            record = await self.record(rid)
            return record if record.status.value == status and record.output_tokens >= tokens else None

        return await wait_until(reached, what=f"{rid} {status}")

    async def runs(self, rid: str, priority: int) -> None:
        """Admit a request, and wait until its engine has yielded something."""
        await self.admit(rid, priority)
        await self.reaches(rid, "running", 1)

    async def heartbeats(self, worker: Worker, number: int = 3) -> None:
        """Wait for some heartbeats, after each of which a worker looks at what waits."""
        ticks = f"{self.store.keys.prefixes[0]}ticks"
        seen = int(await self.store.command("HGET", ticks, worker.id))

        async def has_beaten() -> bool:
            return int(await self.store.command("HGET", ticks, worker.id)) >= seen + number

        await wait_until(has_beaten)

    async def text(self, rid: str) -> int:
        record = await self.record(rid)
        assert record.status == "completed", record
        return record.output_tokens


@pytest.fixture
async def scene(make_settings: MakeSettings, make_store: MakeStore) -> Scene:
    return await scene_of(make_settings, make_store)


async def scene_of(make_settings: MakeSettings, make_store: MakeStore, **changes: Any) -> Scene:
    given = {"concurrency": 1, "preempt": True, "heartbeat_secs": 0.2, "lease_secs": 60.0, "drain_timeout_secs": 0.1}
    settings = make_settings(**given | changes)
    scene = Scene(make_store(settings), settings)
    await scene.open()
    return scene


async def test_the_worst_that_started_last_is_moved(make_settings: MakeSettings, make_store: MakeStore) -> None:
    scene = await scene_of(make_settings, make_store, concurrency=4, heartbeat_secs=5.0)  # no heartbeat helps
    async with serving(scene.settings, scene.engine):
        for rid, priority in (("three", 3), ("early", 7), ("late", 7), ("five", 5)):
            await scene.runs(rid, priority)
        for number, moved in enumerate(("late", "early", "five")):
            await scene.runs(f"better{number}", 4)
            await scene.reaches(moved, "queued")
        assert (await scene.record("three")).preemptions == 0
        await scene.engine.release("three", "early", "late", "five", *(f"better{number}" for number in range(3)))
        for rid in ("three", "early", "late", "five"):
            await scene.reaches(rid, "completed")
            assert await scene.text(rid) == 2


@pytest.mark.parametrize("priority", [5, 6])
async def test_nothing_is_moved_for_what_is_not_better(scene: Scene, priority: int) -> None:
    async with serving(scene.settings, scene.engine) as worker:
        await scene.runs("r", 5)
        await scene.admit("other", priority)
        await scene.heartbeats(worker)
        assert ((await scene.record("r")).status, (await scene.record("other")).status) == ("running", "queued")
        await scene.engine.release("r", "other")
        await scene.reaches("other", "completed")
        assert (await scene.record("r")).attempt == 1


async def test_an_engine_that_cannot_resume_keeps_its_requests(scene: Scene) -> None:
    scene.engine.resumable = False
    async with serving(scene.settings, scene.engine) as worker:
        await scene.runs("r", 5)
        await scene.admit("better", 0)
        await scene.heartbeats(worker)
        assert ((await scene.record("r")).status, (await scene.record("better")).status) == ("running", "queued")
        await scene.engine.release("r", "better")
        await scene.reaches("better", "completed")


async def test_a_request_that_was_moved_often_enough_keeps_its_slot(scene: Scene) -> None:
    async with serving(scene.settings, scene.engine) as worker:
        await scene.runs("r", 5)
        for number in range(MOST_PREEMPTIONS):
            await scene.runs(f"better{number}", 0)
            await scene.engine.release(f"better{number}")
            await scene.reaches("r", "running", 1)
        await scene.admit("last", 0)
        await scene.heartbeats(worker)
        assert ((await scene.record("r")).status, (await scene.record("last")).status) == ("running", "queued")
        await scene.engine.release("r", "last")
        await scene.reaches("last", "completed")
        record = await scene.reaches("r", "completed")
        assert (record.preemptions, record.attempt, record.output_tokens) == (MOST_PREEMPTIONS, MOST_PREEMPTIONS + 1, 2)


async def test_a_worker_with_a_free_slot_takes_it_instead(scene: Scene) -> None:
    async with serving(scene.settings, scene.engine) as full:
        await scene.runs("r", 5)
        async with serving(scene.settings, scene.engine) as other:

            async def waits() -> bool:
                waiting = f"{scene.store.keys.prefixes[0]}waiting:m"
                return {full.id.encode(), other.id.encode()} == set(await scene.store.command("ZRANGE", waiting, 0, -1))

            await wait_until(waits, what="two workers that wait")
            await scene.runs("better", 0)
            assert (await scene.record("better")).worker == other.id
            assert (await scene.record("r")).preemptions == 0
            await scene.engine.release("r", "better")
            await scene.reaches("better", "completed")
            await scene.reaches("r", "completed")


async def test_what_runs_in_another_shard_is_moved_too(make_settings: MakeSettings, make_store: MakeStore) -> None:
    scene = await scene_of(make_settings, make_store, shards=4, heartbeat_secs=5.0)  # no heartbeat helps
    shard_of = scene.store.keys.shard_of
    rids = [next(f"r{n}" for n in range(1000) if shard_of(f"r{n}") == shard) for shard in range(4)]
    async with serving(scene.settings, scene.engine):
        for number, rid in enumerate(rids):
            await scene.runs(rid, 9 - number)
        for rid in rids[:-1]:
            assert (await scene.record(rid)).status == "queued"
        await scene.engine.release(*rids)
        for rid in rids:
            await scene.reaches(rid, "completed")
            assert await scene.text(rid) == 2


async def test_a_paused_worker_moves_nothing(scene: Scene) -> None:
    async with serving(scene.settings, scene.engine) as worker:
        await scene.runs("r", 5)
        worker._slots.pause(True)
        await scene.admit("better", 0)
        await scene.heartbeats(worker)
        assert ((await scene.record("r")).status, (await scene.record("better")).status) == ("running", "queued")
        worker._slots.pause(False)
        await scene.reaches("better", "running")
        await scene.engine.release("r", "better")
        await scene.reaches("r", "completed")


async def test_a_bell_that_nobody_hears_is_made_good_by_a_heartbeat(scene: Scene) -> None:
    async with serving(scene.settings, scene.engine) as worker:
        await scene.runs("r", 5)
        await join(scene.store, "deaf", Role.WORKER, {}, ["m"])
        await scene.store.command("ZADD", f"{scene.store.keys.prefixes[0]}waiting:m", 0, "deaf")  # it is rung first
        await scene.runs("better", 0)
        assert (await scene.record("better")).worker == worker.id
        await scene.engine.release("r", "better")
        await scene.reaches("r", "completed")


def _hold_move(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the next move for a better request before it is sent. Return what says that it is held, and its release."""
    held, go_on, requeue = asyncio.Event(), asyncio.Event(), Store.requeue

    async def slow(self: Store, *args: Any, **options: Any) -> str:
        if options.get("preempted_by") is not None:
            held.set()
            await go_on.wait()
        return await requeue(self, *args, **options)

    monkeypatch.setattr(Store, "requeue", slow)
    return held, go_on


async def test_nothing_is_moved_for_a_request_that_is_cancelled_before_it_is_taken(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(scene.settings, scene.engine) as worker:
        await scene.runs("r", 5)
        await scene.heartbeats(worker, 1)
        take, held, go_on = Store.take, asyncio.Event(), asyncio.Event()

        async def slow(self: Store, *args: Any, **options: Any) -> Taken | None:
            if args[5] == 1 and options["gives_up"] == 5:
                held.set()
                await go_on.wait()
            return await take(self, *args, **options)

        monkeypatch.setattr(Store, "take", slow)
        await scene.admit("better", 0)
        await held.wait()
        await scene.store.cancel("better", CancelMode.KILL, "")
        go_on.set()
        await scene.heartbeats(worker)
        record = await scene.record("r")
        assert (record.status, record.attempt, record.preemptions) == ("running", 1, 0)
        await scene.engine.release("r")
        await scene.reaches("r", "completed")


async def test_a_request_that_is_cancelled_before_its_slot_is_free_ends_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(scene.settings, scene.engine):
        await scene.runs("r", 5)
        held, go_on = _hold_move(monkeypatch)
        await scene.admit("better", 0)
        await held.wait()
        await scene.store.cancel("better", CancelMode.KILL, "")
        go_on.set()
        await scene.reaches("better", "cancelled")
        await scene.reaches("r", "running", 1)
        await scene.engine.release("r")
        record = await scene.reaches("r", "completed")
        assert (record.output_tokens, record.preemptions) == (2, 1)


async def test_a_request_that_ends_before_it_is_moved_has_ended_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(scene.settings, scene.engine):
        await scene.runs("r", 5)
        held, go_on = _hold_move(monkeypatch)
        await scene.admit("better", 0)
        await held.wait()
        await scene.engine.release("r")
        record = await scene.reaches("r", "completed")
        go_on.set()
        await scene.engine.release("better")
        await scene.reaches("better", "completed")
        assert (record.preemptions, record.attempt) == (0, 1)


async def test_a_slot_whose_engine_does_not_end_is_not_waited_for(
    make_settings: MakeSettings, make_store: MakeStore
) -> None:
    scene = await scene_of(make_settings, make_store, kill_grace_secs=0.1)
    ends = asyncio.Event()

    async def clinging(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "one "
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue

    clinging.resumable = True  # type: ignore[attr-defined]
    async with serving(scene.settings, clinging) as worker:
        await scene.runs("r", 5)
        await scene.admit("better", 0)
        await wait_until(lambda: worker._running.stuck == 1, what="a stuck engine")
        await scene.reaches("better", "queued")
        await scene.engine.release("r", "better")
        async with serving(scene.settings, scene.engine):
            for rid in ("better", "r"):
                await scene.reaches(rid, "completed")
                assert await scene.text(rid) == 2
        assert worker._slots.free == 0
        ends.set()
        await wait_until(lambda: worker._slots.free == 1, what="a free slot")
