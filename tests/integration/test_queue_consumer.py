"""A worker with few slots takes requests from the queues of several shards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.types import Role
from tests.admitting import admit
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.waiting import wait_until
from tests.workers import serving

SHARDS, REQUESTS = 8, 60


async def brief(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    await asyncio.sleep(0)
    yield "word"


async def test_one_slot_over_many_shards_is_not_handed_more_than_it_can_hold(
    make_settings: MakeSettings, make_store: MakeStore
) -> None:
    """A request that finds no slot goes to the retry queue; this may happen once a shard, when the slots run out."""
    settings = make_settings(shards=SHARDS, concurrency=1, lease_secs=60.0, drain_timeout_secs=0.1)
    store = make_store(settings)
    await join(store, "f0", Role.FRONTEND, {}, [])
    for number in range(REQUESTS):
        await admit(store, f"r{number}", on_disconnect="continue")

    async def all_ended() -> bool:
        return not any([await store.command("ZCARD", prefix + "active") for prefix in store.keys.prefixes])

    async with serving(settings, brief):
        await wait_until(all_ended, timeout=30)
    queues = [
        await store.command("HGET", f"{store.keys.prefix_of(rid)}request:{rid}", "queue")
        for rid in (f"r{number}" for number in range(REQUESTS))
    ]
    assert queues.count(b"retry") < SHARDS
