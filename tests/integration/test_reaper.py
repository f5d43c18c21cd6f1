"""The reaper over several shards."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from lifecycle.replica.reaper import Reaper
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.admitting import admit
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.unit.world import MODEL

SHARDS = 4
RIDS = ("r0", "r1", "r2", "r3")  # one in each


@pytest.mark.leaves_inflight
async def test_a_shard_that_fails_keeps_no_other_waiting(make_settings: MakeSettings, make_store: MakeStore) -> None:
    store = make_store(make_settings(shards=SHARDS, lease_secs=60.0))
    assert [store.keys.shard_of(rid) for rid in RIDS] == list(range(SHARDS))
    await join(store, "f0", Role.FRONTEND, {}, [])
    await join(store, "w0", Role.WORKER, {}, [MODEL])
    for rid in RIDS:
        await admit(store, rid, on_disconnect="continue")
        await store.take(store.keys.shard_of(rid), "w0", 1, "nonce-01", [MODEL], 1)
    broken = f"{store.keys.prefixes[0]}running:w0"
    await store.command("SET", broken, "not a hash")

    with pytest.raises(ResponseError):
        await _sweep_all(store, "w0")

    records = [await store.read(rid) for rid in RIDS]
    assert [record.status for record in records if record] == ["running", "queued", "queued", "queued"]
    await store.command("DEL", broken)
    await _sweep_all(store)
    assert not await store.command("EXISTS", store.keys.prefixes[0] + "pending_cleanup")


async def _sweep_all(store: Store, leaving: str = "") -> None:
    reaper = Reaper(store)
    outcomes = await asyncio.gather(*(reaper.sweep(shard, leaving) for shard in range(SHARDS)), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome
