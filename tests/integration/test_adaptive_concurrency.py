"""A worker whose concurrency is `auto` finds how many requests its engine runs best, and shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.aio import tasks
from lifecycle.execution import concurrency_tuner
from lifecycle.execution.context import EngineContext
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings
from lifecycle.types import Role
from tests.cluster import running
from tests.conftest import MakeSettings, MakeStore
from tests.sse import chat, post
from tests.unit.world import MODEL, World
from tests.upstream import Exchange, Serve
from tests.waiting import wait_until
from tests.workers import serving
from worker.engines.upstream_load import parse_waiting

CAPACITY, SECS = 8, 0.25
WINDOWS = 12  # that are looked at once the optimum was reached


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(
        lease_secs=60.0, heartbeat_secs=0.1, sweep_secs=0.1, drain_timeout_secs=0.1, concurrency="auto"
    )


@pytest.fixture
async def world(settings: Settings, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world without workers of its own, and with short windows."""
    monkeypatch.setattr(concurrency_tuner, "_WINDOW_SECS", 0.3)
    world = World(make_store(settings))
    await world.open()
    for name in ("w0", "w1"):
        await world.store.leave(name, Role.WORKER)
    return world


class Engine:
    """Answers in SECS while at most CAPACITY run; with more, it takes longer as they are more."""

    def __init__(self) -> None:
        self.active = 0
        self.most = 0

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(SECS * max(1.0, self.active / CAPACITY))
            yield "done"
        finally:
            self.active -= 1


class Patient(Engine):
    """Is as fast with any number, and tells how many more than CAPACITY there are."""

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(SECS)
            yield "done"
        finally:
            self.active -= 1

    async def waiting(self) -> int:
        return max(0, self.active - CAPACITY)


async def _feed(world: World) -> None:
    """Keep the queue from running empty."""
    number = 0
    while True:
        depth = await world.store.queue_depth(MODEL, "")
        for _ in range(40 - depth):
            await world.admit(f"r{number}")
            number += 1
        await asyncio.sleep(0.02)


async def _follow(worker: Worker, found: list[int]) -> None:
    """Note each number of slots that the worker has."""
    while True:
        slots = worker.about()["concurrency"]
        if not found or found[-1] != slots:
            found.append(slots)
        await asyncio.sleep(0.01)


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("engine", [Engine(), Patient()], ids=["by latency", "by what waits"])
async def test_the_slots_follow_the_engine(world: World, settings: Settings, engine: Engine) -> None:
    found: list[int] = []
    async with serving(settings, engine) as worker:
        helping = [asyncio.create_task(_feed(world)), asyncio.create_task(_follow(worker, found))]
        try:
            await wait_until(lambda: max(found, default=0) >= CAPACITY, timeout=60)
            reached = len(found)
            await wait_until(lambda: len(found) >= reached + WINDOWS, timeout=60)
        finally:
            await tasks.end(helping)
    assert found[0] == 1
    settled = found[reached:]
    assert CAPACITY / 2 <= sum(settled) / len(settled) <= 2 * CAPACITY, found
    assert engine.most <= 4 * CAPACITY, found


async def test_it_is_shown_and_kept_to_its_bounds(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(concurrency="auto", concurrency_min=2, concurrency_max=4, echo_tokens_per_sec=0)
    async with running(settings, tmp_path) as cluster:
        [frontend] = cluster.frontends

        async def shown() -> int:
            replicas = (await cluster.get("/v1/replicas"))["data"]
            return max(int(replica["concurrency"] or 0) for replica in replicas)

        assert await shown() == 2

        async def call() -> None:
            while True:
                async with post(cluster.http, frontend.url, chat("a b", "echo")) as stream:
                    await stream.read()

        calls = [asyncio.create_task(call()) for _ in range(12)]
        try:

            async def grown() -> bool:
                return await shown() == 4

            await wait_until(grown, timeout=30)
            assert await cluster.metric("lifecycle_cluster_worker_slots", model="echo", state="ready") in (2, 3, 4)
        finally:
            await tasks.end(calls)


VLLM = """# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a b}"} 3.0
vllm:num_requests_waiting{engine="1",model_name="a"} 4.0
vllm:num_requests_waiting_by_reason{engine="1"} 9.0
vllm:num_requests_running{engine="0"} 8.0
"""


@pytest.mark.parametrize(
    ("text", "waiting"),
    [
        (VLLM, 7),
        ('sglang:num_queue_reqs{model_name="m"} 2.0 1700000000\n', 2),
        ("llamacpp:requests_deferred 5\n", 5),
        ("tgi_queue_size 0\n", 0),
        ("vllm:num_requests_waiting{} NaN?\n", None),
        ("vllm:num_requests_waiting", None),
        ("vllm:num_requests_waiting{} NaN\n", None),
        ("<html>", None),
        ("", None),
    ],
)
def test_the_metrics_of_servers_tell_what_waits(text: str, waiting: int | None) -> None:
    assert parse_waiting(text) == waiting


async def test_the_openai_engine_asks_its_upstream(serve: Serve) -> None:
    answers = {"/metrics": VLLM}

    async def script(exchange: Exchange) -> None:
        text = answers.get(exchange.path)
        await exchange.head("200 OK" if text else "404 Not Found", "text/plain")
        await exchange.send(text or "no such page")
        await exchange.end()

    upstream, engine = await serve(script)
    assert await engine.waiting() == 7
    assert await engine.waiting() == 7
    answers.clear()
    assert await engine.waiting() is None
    asked = len(upstream.exchanges)
    assert await engine.waiting() is None
    assert len(upstream.exchanges) == asked, "one that has no metrics is not asked again at once"
    assert {exchange.path for exchange in upstream.exchanges} == {"/metrics"}


@pytest.mark.leaves_inflight
async def test_long_answers_do_not_hold_the_growth_back(world: World, settings: Settings) -> None:
    """Events that come as fast as before say that there is room, although no request ends for a long time."""

    async def long(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        while not context.is_stopped:
            yield "word "
            await asyncio.sleep(0.005)

    for number in range(10):
        await world.admit(f"r{number}")
    async with serving(settings.model_copy(update={"concurrency_max": CAPACITY}), long) as worker:
        await wait_until(lambda: worker.about()["concurrency"] == CAPACITY, timeout=30, what="a worker that has grown")
