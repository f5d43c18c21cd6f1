"""A queued request is told its wait while a part of Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

import lifecycle
from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import queues
from lifecycle.store.transitions import Store
from tests.conftest import MakeSettings, connect
from tests.refusing_redis import RefusingRedis
from tests.unit.world import World


@asynccontextmanager
async def _relayed(make_settings: MakeSettings) -> AsyncIterator[tuple[World, RefusingRedis]]:
    with EmbeddedRedis(port=0) as server:
        async with RefusingRedis(server.port) as relay:
            settings = make_settings(redis_url=relay.url, redis_timeout_secs=1.0)
            store = Store(connect(settings), settings)
            world = World(store)
            await world.open()
            yield world, relay
            relay.accept()
            await world.close()
            await store.commands.aclose()


@pytest.mark.leaves_inflight
async def test_a_record_is_read_while_other_shards_and_the_list_of_replicas_are_away(
    make_settings: MakeSettings,
) -> None:
    async with _relayed(make_settings) as (world, relay):
        await world.admit("r0")
        record = await world.record("r0")
        relay.refuse("BUSY try again", "roster", "EXISTS")  # what is asked beside the record's own shard
        told = await queues.with_wait(world.store, record)
        assert (told.queue_position, told.estimated_wait_secs) == (1, None)
        relay.refuse("BUSY try again", "waits")
        with pytest.raises(StoreUnavailable):
            await queues.with_wait(world.store, record)


@pytest.mark.leaves_inflight
async def test_only_who_reads_the_record_asks_for_its_wait(make_settings: MakeSettings) -> None:
    async with _relayed(make_settings) as (world, relay):
        await world.admit("r0")
        relay.refuse("BUSY try again", "waits")
        async with lifecycle.AsyncClient(redis_url=relay.url, namespace=world.store.settings.namespace) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5), aclosing(client.stream("r0")) as events:
                    await anext(events)  # nothing comes: it is queued
        assert relay.refused["waits"] == 0
