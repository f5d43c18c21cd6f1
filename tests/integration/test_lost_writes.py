"""Redis loses its last writes, as by a failover to a replica that lags.

No answer is joined of two, and none that has ended runs again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.ids import TokenId
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.results import Offer
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode
from tests.known_faults.core.kit import ended, heartbeats, record_of
from tests.known_faults.core.replicas import (
    MODEL,
    call,
    dump_shard,
    frontend,
    quick_settings,
    reading,
    restore_shard,
    served,
    worker,
)
from tests.waiting import wait_until


async def _tick(store: Store, replica: str) -> int:
    return int(await store.command("HGET", f"{store.keys.prefixes[0]}ticks", replica) or 0)


@pytest.mark.parametrize("outcome", ["completed", "cancelled"])
async def test_a_request_whose_start_and_end_are_lost_is_not_run_again(outcome: str) -> None:
    runs: list[str] = []

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        runs.append(context.id)
        if outcome == "cancelled":
            await context.killed()
        yield "a"

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, queue_without_workers=True)
        async with frontend(settings) as tracker:
            store = tracker.store
            prefix = store.keys.prefixes[0]
            await tracker.admit(call("r1"))
            before_the_start = dump_shard(server, prefix)
            async with worker(settings, engine) as serving:
                await wait_until(lambda: runs, what="a run of the engine")
                if outcome == "cancelled":
                    await tracker.cancel("r1", CancelMode.KILL, "please", 5.0)
                await wait_until(lambda: ended(store, "r1"), what="the first end")
                await wait_until(lambda: len(tracker.owned) == 0, what="the end at the frontend")
                await heartbeats(store, serving.id, 2)
                restore_shard(server, prefix, before_the_start)
                await wait_until(lambda: ended(store, "r1"), what="an end after the loss")
                record = await record_of(store, "r1")
    assert runs == ["r1"]
    assert (record.status, record.error_type) in {(outcome, ""), (outcome, outcome), ("failed", "state_lost")}


async def test_a_worker_that_starts_a_lost_request_anew_does_not_splice_its_own_answers() -> None:
    runs: list[int] = []
    go_on = asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        runs.append(len(runs) + 1)
        run = runs[-1]
        for number in range(1, 4):
            yield f"{run}.{number} "
        await go_on.wait()
        for number in range(4, 7):
            yield f"{run}.{number} "

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, queue_without_workers=True, lease_secs=30.0)
        async with frontend(settings) as tracker:
            store = tracker.store
            prefix = store.keys.prefixes[0]
            flight = await tracker.admit(call("r1"))
            before_the_start = dump_shard(server, prefix)
            async with reading(flight.reader) as live, worker(settings, engine) as serving:
                await live.got(3)
                await heartbeats(store, serving.id, 2)
                restore_shard(server, prefix, before_the_start)
                end = await live.ended()
                go_on.set()
                await wait_until(lambda: ended(store, "r1"), what="the end of the request")
                opened = await tracker.open_reader("r1", TokenId(1, 3))
                assert opened is not None
                async with reading(opened[1]) as resumed:
                    resumed_end = await resumed.ended()
    assert live.text == "1.1 1.2 1.3 "
    assert (end.status, end.error_type) == ("failed", "state_lost")
    assert resumed_end.status == "failed"
    assert resumed.text == ""


async def test_a_writer_checks_the_stream_after_a_loss_and_ends_its_engine() -> None:
    kept, lost, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        try:
            yield "a"
            await kept.wait()
            yield "b"
            await lost.wait()
            yield "c"
            await context.killed()
        finally:
            stopped.set()

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, engine) as serving:
            await served(tracker)
            store = tracker.store
            prefix = store.keys.prefixes[0]
            flight = await tracker.admit(call("r1"))
            async with reading(flight.reader) as client:
                await client.got(1)
                dumped = dump_shard(server, prefix)
                kept.set()
                await client.got(2)
                await heartbeats(store, serving.id, 2)
                restore_shard(server, prefix, dumped)
                tick = await _tick(store, serving.id)

                async def has_noticed() -> bool:  # it asks again once it has handled the loss
                    return await _tick(store, serving.id) >= tick + 2

                await wait_until(has_noticed, what="the reconciliation after the loss")
                lost.set()
                end = await client.ended()
            await wait_until(stopped.is_set, what="the end of the engine")
    assert (client.text, end.error_type) == ("ab", "state_lost")


async def test_a_frontend_ends_what_it_has_told_the_end_of_although_its_worker_has_gone() -> None:
    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "a"

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, queue_without_workers=True)
        async with frontend(settings) as tracker:
            store, prefix = tracker.store, tracker.store.keys.prefixes[0]
            await tracker.admit(call("r1"))
            before_the_start = dump_shard(server, prefix)
            async with worker(settings, engine):
                await wait_until(lambda: ended(store, "r1"), what="the first end")
                await wait_until(lambda: len(tracker.owned) == 0, what="the end at the frontend")
            await heartbeats(store, tracker.id, 2)
            restore_shard(server, prefix, before_the_start)
            await wait_until(lambda: ended(store, "r1"), what="an end after the loss")
            record = await record_of(store, "r1")
    assert (record.status, record.error_type) == ("failed", "state_lost")


async def test_a_worker_whose_start_is_lost_reports_it_when_its_engine_ends() -> None:
    go_on = asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "a"
        await go_on.wait()

    with EmbeddedRedis(port=0) as server:
        # No heartbeat comes meanwhile, which would tell the worker that the request is not its own.
        settings = quick_settings(server.url, queue_without_workers=True, lease_secs=120.0, heartbeat_secs=30.0)
        async with frontend(settings) as tracker:
            store, prefix = tracker.store, tracker.store.keys.prefixes[0]
            await tracker.admit(call("r1"))
            before_the_start = dump_shard(server, prefix)

            async def has_token() -> bool:  # nobody reads it: a reader would report the lost start too
                return (await record_of(store, "r1")).stream_length == 1

            async with worker(settings, engine):
                await wait_until(has_token, what="the first token")
                restore_shard(server, prefix, before_the_start)
                taken = await store.take(0, "another", 1, "another-", [MODEL], 1, Offer())
                assert taken is not None
                assert [run.rid for run in taken.runs] == ["r1"]
                go_on.set()
                await wait_until(lambda: ended(store, "r1"), what="the end of the request")
                record = await record_of(store, "r1")
    assert (record.status, record.error_type, record.attempt) == ("failed", "state_lost", 1)


async def test_a_client_whose_leaving_redis_has_lost_has_left() -> None:
    """Its request continues without it, so only the number of readers shows that; a later cancel may depend on it."""
    stop = asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "a"
        await stop.wait()

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, engine):
            await served(tracker)
            store, prefix = tracker.store, tracker.store.keys.prefixes[0]

            async def readers() -> int:
                return int(await store.command("HGET", f"{prefix}readers:r1", tracker.id) or 0)

            async def is_read() -> bool:
                return await readers() == 1

            async def is_read_no_more() -> bool:
                return await readers() == 0

            flight = await tracker.admit(call("r1"))
            async with reading(flight.reader) as client:
                await client.got(1)
            await wait_until(is_read)
            before = dump_shard(server, prefix)
            flight.connection.close()
            flight.stream.close()
            await wait_until(is_read_no_more)
            await heartbeats(store, tracker.id, 2)
            restore_shard(server, prefix, before)
            assert await is_read()
            await wait_until(is_read_no_more, what="the reader's leaving that is told again")
            stop.set()
            await wait_until(lambda: ended(store, "r1"), what="the end of the request")
