"""The worker against what it does not expect: requests twice, poison in its queues and sets, data that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings
from lifecycle.store.pubsub import Message
from lifecycle.store.results import ExpiredReplica, Taken
from lifecycle.store.transitions import Store
from lifecycle.types import Labels, Role
from tests.admitting import new_request
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.unit.world import MODEL, World
from tests.waiting import wait_until
from tests.workers import serving


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Leases that outlast the test: the replicas of the world send one heartbeat."""
    return make_settings(lease_secs=60.0, drain_timeout_secs=0.1, kill_grace_secs=0.2)


@pytest.fixture
async def world(settings: Settings, make_store: MakeStore) -> World:
    return await World.without_workers(make_store(settings))


async def two_words(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    yield "one "
    yield "two"


async def _status(world: World, rid: str = "r") -> str:
    return (await world.record(rid)).status.value


async def _until(world: World, status: str, rid: str = "r") -> None:
    async def reached() -> bool:
        return await _status(world, rid) == status

    await wait_until(reached, what=f"{rid} being {status}")


async def test_a_request_delivered_again_is_not_held_up_by_an_engine_that_does_not_end(
    settings: Settings, world: World
) -> None:
    """Its first attempt was given back behind the worker's back, and its engine hangs for good."""
    release = asyncio.Event()

    async def stuck_at_first(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        while context.attempt == 1 and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        yield f"attempt {context.attempt}"

    async with serving(settings, stuck_at_first) as worker:
        await world.admit()
        await _until(world, "running")
        assert await world.store.requeue("r", worker.id, 1) == "requeued"
        await _until(world, "completed")
        assert await world.tokens() == "attempt 2"
        await wait_until(lambda: worker.about()["stuck"] == 1)
        release.set()
        await wait_until(lambda: worker.about()["stuck"] == 0)


@pytest.mark.parametrize("garbage", [b"\xff\xfe", "no id {at} all", ""])
async def test_garbage_in_a_queue_is_removed_and_what_is_behind_it_runs(
    settings: Settings, world: World, garbage: str | bytes
) -> None:
    flow = f"{world.prefix}flow:0|0||{MODEL}"
    await world.store.command("ZADD", flow, 0, garbage)
    await world.store.command("ZADD", f"{world.prefix}level:0|{MODEL}", 0, "")
    await world.store.command("ZADD", f"{world.prefix}levels:{MODEL}", 0, 0)
    async with serving(settings, two_words):
        await world.admit()
        await _until(world, "completed")
    assert not await world.store.command("EXISTS", flow)


async def test_what_redis_wrongly_counts_as_a_workers_is_put_right(settings: Settings, world: World) -> None:
    """Ids of requests that are unknown, queued, another's or over, in what it runs and what it must end."""
    for rid in ("over", "theirs"):
        await world.run(rid, "w1")
    await world.finish(rid="over", worker="w1")
    await world.admit("queued")
    await world.store.command("DEL", f"{world.prefix}flow:0|0||{MODEL}")  # so that the worker is not given it
    async with serving(settings, two_words) as worker:
        strays = ("unknown", "queued", "theirs", "over")
        running = [text for rid in strays for text in (rid, "f0")]
        await world.store.command("HSET", f"{world.prefix}running:{worker.id}", *running)
        await world.store.command("SADD", f"{world.prefix}pending_cancellations:{worker.id}", *strays)

        async def empty() -> bool:
            keys = [f"{world.prefix}{name}:{worker.id}" for name in ("running", "pending_cancellations")]
            return bool(await world.store.command("EXISTS", *keys) == 0)

        await wait_until(empty)
        assert [await _status(world, rid) for rid in strays[1:]] == ["queued", "running", "completed"]
        assert worker.id not in {(await world.record(rid)).worker for rid in strays[1:]}
    await world.finish(rid="theirs", worker="w1")
    await world.cancel(rid="queued")
    await world.store.sweep(0)
    await world.store.command("HDEL", world.prefix + "ticks", "w1")  # which was cleaned up before it started any


async def test_a_record_that_is_none_holds_up_nothing_else(settings: Settings, world: World) -> None:
    """Its key has another type. Heartbeats, reaps and the orders of others go on."""
    poison = [f"poison-{number}" for number in range(3)]
    for rid in poison:
        await world.store.command("SET", f"{world.prefix}request:{rid}", "x", "EX", 60)
    await world.run("theirs", "w1")
    async with serving(settings, two_words) as worker:
        names = (f"{world.prefix}running:{worker.id}", f"{world.prefix}pending_cancellations:{worker.id}")
        running = [text for rid in poison for text in (rid, "f0")]
        await world.store.command("HSET", names[0], *running)
        await world.store.command("SADD", names[1], *poison)

        async def settled() -> bool:
            return bool(await world.store.command("EXISTS", *names) == 0)

        await wait_until(settled)
        await world.store.command("HSET", f"{world.prefix}running:w1", *running)
        reaped = await world.store.reap(0, ExpiredReplica("w1", "worker"))
        assert (reaped.done, reaped.moved) == (True, 1)
        await _until(world, "completed", "theirs")
    await world.store.command("DEL", *(f"{world.prefix}request:{rid}" for rid in poison))


async def test_a_message_that_is_no_json_is_passed_over(settings: Settings, world: World) -> None:
    stopped = asyncio.Event()

    async def until_killed(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "one"
        try:
            await context.killed()
        finally:
            stopped.set()

    slow = settings.model_copy(update={"heartbeat_secs": 30.0})  # so that only the message can tell it
    await world.share(slow)
    async with serving(slow, until_killed) as worker:
        await world.admit()
        await _until(world, "running")
        for garbage in (b"\xff{", b"", b"[1", b"[]", b"7", b"{}"):
            await world.store.command("PUBLISH", world.store.keys.worker_channel(worker.id), garbage)
        await world.cancel()
        async with asyncio.timeout(10):
            await stopped.wait()
        await _until(world, "cancelled")


async def test_a_cancel_that_overtakes_the_reply_to_the_take_is_heard(
    settings: Settings, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes over another connection, when there is nothing yet that could be cancelled."""
    heard = asyncio.Event()
    take, on_message = Store.take, Worker._on_message

    async def overtaken(store: Store, *args: Any, **options: Any) -> Taken | None:
        answer = await take(store, *args, **options)
        if answer is not None and answer.runs:
            await world.cancel()
            async with asyncio.timeout(10):
                await heard.wait()
        return answer

    def noted(worker: Worker, message: Message) -> None:
        on_message(worker, message)
        if message["type"] == "cancel":
            heard.set()

    async def silent(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        await context.killed()
        yield "no refused token tells it either"

    monkeypatch.setattr(Store, "take", overtaken)
    monkeypatch.setattr(Worker, "_on_message", noted)
    slow = settings.model_copy(update={"heartbeat_secs": 30.0})  # so that only the message can tell it
    await world.share(slow)
    async with serving(slow, silent):
        await world.admit()
        await _until(world, "cancelled")


async def test_a_cancel_that_no_take_can_have_started_is_not_kept(settings: Settings, world: World) -> None:
    """A later request under the same id must not be cancelled by it."""
    async with serving(settings, two_words) as worker:
        await wait_until(lambda: not worker._consumers[0]._due.is_set(), what="a worker that waits for a bell")
        worker._on_message({"type": "cancel", "rid": "r", "mode": "kill"})
        await world.admit()
        await wait_until(lambda: _has_ended(world), what="the end of the request")
    assert await _status(world) == "completed"


async def _has_ended(world: World) -> bool:
    return (await world.record("r")).status.terminal


async def test_one_worker_serves_several_models(settings: Settings, make_store: MakeStore) -> None:
    async def named(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield f"for {request['model']}"

    store = make_store(settings)
    async with serving(settings, named, ("first", "second")) as worker:
        assert worker.about()["models"] == ["first", "second"]
        for model in ("first", "second"):
            labels = Labels(model, "chat_completions", "stream")
            body = orjson.dumps({"model": model})
            await join(store, "f0", Role.FRONTEND, {}, [])
            await store.admit(new_request(model, "n", labels, "f0", body, "cancel"), retry_for_secs=0)
            await _until(World(store), "completed", model)
            assert await World(store).tokens(model) == f"for {model}"
    await World(store).reap("f0")


async def test_a_worker_announces_what_its_engine_takes(settings: Settings) -> None:
    class Takes:
        accepts = ("tools", "n")

        async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
            yield "x"

    async with serving(settings, Takes()) as worker:
        assert worker.about()["accepts"] == ["n", "tools"]
    async with serving(settings, two_words) as worker:
        assert worker.about()["accepts"] == []
