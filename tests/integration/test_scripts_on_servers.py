"""Scripts work on real servers with full memory, with a flushed script cache, and with the slots of a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.keys import SLOTS, Keys, crc16
from lifecycle.store.results import Append, Outcome
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.conftest import MakeSettings, MakeStore, connect
from tests.servers import info
from tests.unit.world import World

FILLER_BYTES = 16_384


@pytest.fixture
async def world(store: Store) -> World:
    world = World(store)
    await world.open()
    return world


@pytest.fixture
async def small_world(make_settings: MakeSettings) -> AsyncIterator[World]:
    """Provide a world on a server of its own, whose memory the test may fill."""
    with EmbeddedRedis() as server:
        settings = make_settings(redis_url=server.url)
        store = Store(connect(settings), settings)
        world = World(store)
        await world.open()
        yield world
        await store.commands.aclose()


async def _fill_memory(store: Store) -> None:
    await store.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1mb")
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        for number in range(10_000):
            await store.command("SET", f"filler:{number}", b"x" * FILLER_BYTES)


async def test_full_memory_refuses_admission_and_nothing_else(small_world: World) -> None:
    world, store = small_world, small_world.store
    for rid in ("r0", "r1", "r2", "r3"):
        await world.run(rid)
    await world.admit("waiting")
    await _fill_memory(store)

    with pytest.raises(StoreUnavailable):
        await world.admit("one-more")
    assert await world.append(1, rid="r0") == "accepted"

    await world.take()
    assert (await world.finish(1, rid="r0")).what == "done"
    assert await world.cancel(rid="r1") == "pending"
    assert (await world.finish(rid="r1")).what == "done"
    assert (await store.fail("r2", "response_timeout", "silence")).what == "done"
    last = Append("r3", 1, 1, b'["1.1 "]', True)
    remainder = await store.finish("r3", "w0", 1, Outcome("completed", finish_reason="stop"), 1, remainder=last)
    assert remainder.what == "done", "the last tokens travel with the end, whatever the memory"
    assert await world.reap("w0") == (0, 1, 0)
    await world.heartbeat("w0")

    await store.command("CONFIG", "SET", "maxmemory", "0")
    assert (await world.admit("one-more")).outcome == "admitted"


async def test_callers_at_the_same_time_send_the_source_of_a_script_once(make_settings: MakeSettings) -> None:
    with EmbeddedRedis() as server:
        settings = make_settings(redis_url=server.url)
        store = Store(connect(settings), settings)
        await asyncio.gather(*(store.read(f"r{number}") for number in range(200)))
        assert "calls=1," in info(server, "commandstats")["cmdstat_eval"]
        await store.commands.aclose()


async def test_a_flushed_script_cache_costs_nothing(world: World) -> None:
    await world.run()
    await world.store.command("SCRIPT", "FLUSH", "SYNC")
    await world.append(1)
    await world.store.command("SCRIPT", "FLUSH", "SYNC")
    assert (await world.finish(1)).what == "done"
    assert await world.tokens() == "1.1 "


async def test_every_script_passes_the_slot_check_of_a_real_server(make_store: MakeStore) -> None:
    """A `#!lua` script that touches another slot than its KEYS is refused, on a single server too."""
    world = World(make_store())
    await world.open()
    await world.run()
    await world.store.reconcile_shard(0, "w0", Role.WORKER, ["r"])
    await world.store.roster()
    await world.cancel()
    await world.finish()


async def test_the_slots_are_those_of_redis_cluster() -> None:
    with EmbeddedRedis(config={"cluster-enabled": "yes"}) as server:
        prefixes = Keys("lc", 16).prefixes
        with redis.Redis.from_url(server.url) as client:
            slots = [client.execute_command("CLUSTER KEYSLOT", prefix + "request:r") for prefix in prefixes]
            tags = [prefix.partition("{")[2].partition("}")[0] for prefix in prefixes]
            assert slots == [crc16(tag.encode()) % SLOTS for tag in tags]
            assert [slot * 16 // SLOTS for slot in slots] == list(range(16))
