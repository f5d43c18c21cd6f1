"""The health of an engine: probes, pauses between them, and the slots that are withheld meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lifecycle.aio import tasks
from lifecycle.errors import Unavailable
from lifecycle.execution.concurrency_slots import ConcurrencySlots
from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine_health import EngineHealth
from tests.waiting import wait_until

SIZE = 4


class ScriptedEngine:
    """An engine whose health check does what the test says."""

    def __init__(self, health: Callable[[], Awaitable[None]] | None = None) -> None:
        self.probes = 0
        self._script = health
        if health is not None:
            self.health = self._health

    async def _health(self) -> None:
        self.probes += 1
        assert self._script is not None
        await self._script()

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "never called"


class Watched:
    """A running EngineHealth, its slots and what it announced."""

    def __init__(self, engine: ScriptedEngine, timeout_secs: float) -> None:
        self.slots = ConcurrencySlots(SIZE)
        self.announced: list[bool] = []
        self.health = EngineHealth(
            engine, self.slots, interval_secs=0.01, timeout_secs=timeout_secs, announce=self._announce
        )

    async def _announce(self) -> None:
        self.announced.append(self.health.healthy)

    async def until(self, healthy: bool) -> None:
        await wait_until(lambda: self.health.healthy is healthy, what=f"an engine that is healthy: {healthy}")


@asynccontextmanager
async def watching(engine: ScriptedEngine, timeout_secs: float = 5.0) -> AsyncIterator[Watched]:
    watched = Watched(engine, timeout_secs)
    running = asyncio.create_task(watched.health.run())
    try:
        yield watched
        assert not running.done()
    finally:
        await tasks.end([running])
        if watched.health.probing is not None:
            await tasks.end([watched.health.probing])


async def test_a_failing_probe_withholds_every_slot_until_one_succeeds() -> None:
    failing = True

    async def probe() -> None:
        if failing:
            raise Unavailable("out of memory")

    async with watching(ScriptedEngine(probe)) as watched:
        await watched.until(False)
        assert watched.slots.free == 0
        about = watched.health.about()
        assert about["error"] == "out of memory"
        assert 0 < about["probe_in_secs"] <= 0.5
        failing = False
        await watched.until(True)
        assert watched.slots.free == SIZE
        assert watched.health.about() == {}
    assert watched.announced == [False, True]


async def test_an_engine_without_probe_gets_one_request_until_it_has_produced_an_event() -> None:
    async with watching(ScriptedEngine()) as watched:
        assert watched.slots.reserve(1)
        watched.slots.occupy_reserved()  # by a request that goes on meanwhile
        await watched.health.fail("no connection")
        assert watched.slots.free == 0
        await watched.until(True)
        assert watched.slots.free == 1, "one more than the one that runs"
        watched.health.served()
        assert watched.slots.free == SIZE - 1


async def test_several_requests_that_fail_at_once_are_one_failure() -> None:
    async with watching(ScriptedEngine()) as watched:
        await asyncio.gather(*(watched.health.fail("no connection") for _ in range(SIZE)))
        assert watched.health.probe_in_secs <= 0.5
    assert watched.announced == [False]


async def test_pauses_grow_until_an_event_has_come() -> None:
    async with watching(ScriptedEngine()) as watched:
        pauses = []
        for _ in range(2):
            await watched.health.fail("no connection")
            pauses.append(watched.health.probe_in_secs)
            await watched.until(True)
        watched.health.served()
        await watched.health.fail("no connection")
        pauses.append(watched.health.probe_in_secs)
    assert pauses[0] <= 0.5 < pauses[1] <= 1.0
    assert pauses[2] <= 0.5


async def test_a_probe_that_never_ends_is_a_failure_after_its_time_limit() -> None:
    async def probe() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if released.is_set():
                    raise

    released = asyncio.Event()
    engine = ScriptedEngine(probe)
    async with watching(engine, timeout_secs=0.05) as watched:
        await watched.until(False)
        assert watched.health.error == "the engine's health check did not end within 0.05 seconds"
        assert engine.probes == 1
        released.set()


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_a_probe_cannot_end_the_worker(failure: BaseException) -> None:
    async def probe() -> None:
        raise failure

    async with watching(ScriptedEngine(probe)) as watched:
        await watched.until(False)
        assert "health check" in watched.health.error


async def test_a_broken_answer_makes_the_next_probe_come_at_once() -> None:
    answering = asyncio.Event()

    async def probe() -> None:
        if answering.is_set():
            raise Unavailable("no connection")

    engine = ScriptedEngine(probe)
    watched = Watched(engine, 5.0)
    watched.health = EngineHealth(
        engine, watched.slots, interval_secs=3600, timeout_secs=5.0, announce=watched._announce
    )
    running = asyncio.create_task(watched.health.run())
    try:
        await wait_until(lambda: engine.probes == 1, what="the first probe")
        answering.set()
        watched.health.suspect()
        await watched.until(False)
    finally:
        await tasks.end([running])
        if watched.health.probing is not None:
            await tasks.end([watched.health.probing])
