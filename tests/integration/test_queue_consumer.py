"""A worker takes requests from the queues of several shards, and waits for bells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.execution.context import EngineContext
from lifecycle.execution.worker import Worker
from lifecycle.store.results import Taken
from lifecycle.store.transitions import Store
from lifecycle.types import ReplicaState, Role
from tests.admitting import admit
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.waiting import wait_until
from tests.workers import serving

SHARDS, REQUESTS = 8, 60


async def brief(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    await asyncio.sleep(0)
    yield "word"


async def test_one_slot_over_many_shards_takes_no_more_than_it_can_hold(
    make_settings: MakeSettings, make_store: MakeStore
) -> None:
    settings = make_settings(shards=SHARDS, concurrency=1, lease_secs=60.0, drain_timeout_secs=0.1)
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    for number in range(REQUESTS):
        await admit(store, f"r{number}", on_disconnect="continue")
    async with serving(settings, brief):
        await wait_until(lambda: _all_ended(store), timeout=60)
    records = [await store.read(f"r{number}") for number in range(REQUESTS)]
    assert [(record.status, record.attempt) for record in records if record] == [("completed", 1)] * REQUESTS


async def _all_ended(store: Store) -> bool:
    return not any([await store.command("ZCARD", prefix + "active") for prefix in store.keys.prefixes])


async def _waits(store: Store, worker: str, shard: int = 0) -> bool:
    return await store.command("ZSCORE", f"{store.keys.prefixes[shard]}waiting:m", worker) is not None


async def test_a_waiting_worker_is_rung(make_settings: MakeSettings, make_store: MakeStore) -> None:
    settings = make_settings(concurrency=2, lease_secs=240.0, heartbeat_secs=60.0)  # no heartbeat helps
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    async with serving(settings, brief) as worker:
        for number in range(5):
            await wait_until(lambda: _waits(store, worker.id), what="a worker that waits")
            await admit(store, f"r{number}", on_disconnect="continue")
            await wait_until(lambda: _all_ended(store), what="a request that the bell has started")


async def test_a_bell_that_nobody_hears_is_made_good_by_a_heartbeat(
    make_settings: MakeSettings, make_store: MakeStore
) -> None:
    settings = make_settings(concurrency=2, lease_secs=60.0, heartbeat_secs=0.5)
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    waiting = f"{store.keys.prefixes[0]}waiting:m"
    async with serving(settings, brief) as worker:
        await wait_until(lambda: _waits(store, worker.id), what="a worker that waits")
        await join(store, "deaf", Role.WORKER, {}, ["m"])
        await store.command("ZADD", waiting, 0, "deaf")  # it is rung first
        await admit(store, "r0", on_disconnect="continue")
        await wait_until(lambda: _all_ended(store), what="a request that a heartbeat has started")
        await store.command("DEL", waiting)  # Redis has forgotten that the worker waits
        await wait_until(lambda: _waits(store, worker.id), what="a worker that waits again")


async def test_a_full_worker_that_is_rung_lets_another_be_rung(
    make_settings: MakeSettings, make_store: MakeStore
) -> None:
    """It waits in two shards; the bell of the second comes when a request of the first has taken its only slot."""
    settings = make_settings(shards=2, concurrency=1, lease_secs=240.0, heartbeat_secs=60.0)
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    release = asyncio.Event()
    here, there = (next(f"r{n}" for n in range(100) if store.keys.shard_of(f"r{n}") == shard) for shard in (0, 1))

    async def held(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        await release.wait()
        yield "word"

    async with serving(settings, held) as first:
        await wait_until(lambda: _waits(store, first.id, 0), what="a worker that waits")
        await wait_until(lambda: _waits(store, first.id, 1), what="a worker that waits")
        await admit(store, here, on_disconnect="continue")
        await wait_until(lambda: first.requests == [here], what="a full worker")
        async with serving(settings, brief) as second:
            await wait_until(lambda: _waits(store, second.id, 1), what="another worker that waits")
            await admit(store, there, on_disconnect="continue")  # the first has waited longer, and is rung
            await wait_until(lambda: _ended(store, there), what="the end at the other worker")
        release.set()
        await wait_until(lambda: _all_ended(store), what="the end of both")


async def _ended(store: Store, rid: str) -> bool:
    record = await store.read(rid)
    return record is not None and record.status.terminal


async def test_what_is_taken_while_a_worker_begins_to_drain_is_given_back(
    make_settings: MakeSettings, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(concurrency=2, lease_secs=60.0, queue_without_workers=True)
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    taken, go_on = asyncio.Event(), asyncio.Event()
    take = Store.take

    async def slow(self: Store, *args: Any, **options: Any) -> Taken | None:
        answer = await take(self, *args, **options)
        if answer is not None and answer.runs:
            taken.set()
            await go_on.wait()
        return answer

    monkeypatch.setattr(Store, "take", slow)
    async with serving(settings, brief) as worker:
        await wait_until(lambda: _waits(store, worker.id), what="a worker that waits")
        await admit(store, "r0", on_disconnect="continue")
        await taken.wait()
        worker.drain()
        await wait_until(lambda: worker.state == ReplicaState.DRAINING, what="a draining worker")
        go_on.set()
        await wait_until(lambda: _is_queued_again(store), what="a request that was given back")
    monkeypatch.undo()
    async with serving(settings, brief):
        await wait_until(lambda: _all_ended(store), what="the end at another worker")
    record = await store.read("r0")
    assert record is not None
    assert (record.status, record.attempt) == ("completed", 2)
    assert await store.command("HGET", f"{store.keys.prefixes[0]}request:r0", "failures") is None


async def _is_queued_again(store: Store) -> bool:
    record = await store.read("r0")
    return record is not None and (record.status, record.attempt) == ("queued", 1)


def _lose_one_reply(monkeypatch: pytest.MonkeyPatch, worker: Worker, *, with_runs: bool) -> asyncio.Event:
    """Lose the reply to the worker's next take that brings requests, or none. The worker is paused at that moment."""
    lost, take = asyncio.Event(), Store.take

    async def losing(self: Store, *args: Any, **options: Any) -> Taken | None:
        answer = await take(self, *args, **options)
        if args[1] == worker.id and not lost.is_set() and answer is not None and bool(answer.runs) == with_runs:
            lost.set()
            worker._slots.pause(True)
            raise StoreUnavailable("the reply was lost")
        return answer

    monkeypatch.setattr(Store, "take", losing)
    return lost


async def test_a_full_worker_too_gives_back_what_a_lost_reply_has_brought(
    make_settings: MakeSettings, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(lease_secs=240.0, heartbeat_secs=60.0)  # no heartbeat helps
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    async with serving(settings, brief) as first:
        await wait_until(lambda: _waits(store, first.id), what="a worker that waits")
        lost = _lose_one_reply(monkeypatch, first, with_runs=True)
        await admit(store, "r0", on_disconnect="continue")
        await lost.wait()
        async with serving(settings, brief):
            await wait_until(lambda: _all_ended(store), what="the end at another worker")


async def test_a_full_worker_stops_waiting_after_a_lost_reply(
    make_settings: MakeSettings, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would keep a bell from the others."""
    settings = make_settings(lease_secs=240.0, heartbeat_secs=60.0)
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    async with serving(settings, brief) as worker:
        await wait_until(lambda: _waits(store, worker.id), what="a worker that waits")
        lost = _lose_one_reply(monkeypatch, worker, with_runs=False)
        await store.command("PUBLISH", store.keys.worker_channel(worker.id), _bell(store))
        await lost.wait()

        async def waits_no_more() -> bool:
            return not await _waits(store, worker.id)

        await wait_until(waits_no_more, what="a worker that does not wait")


def _bell(store: Store) -> bytes:
    return orjson.dumps({"type": "bell", "prefix": store.keys.prefixes[0]})
