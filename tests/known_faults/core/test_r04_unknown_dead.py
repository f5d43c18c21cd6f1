"""A worker has died, and what Redis knows of that is lost, on one side or the other.

The list of replicas and the shards lie on different nodes of a Cluster. If the list is lost, nothing shows that the
worker ever was; a shard may also lose that the dead worker's requests were dealt with. Expected: the request ends, in
either case, because the shard that has it has the worker's lease too.

Both losses are made on one server here: the keys of one side are put back to what they were.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.results import Append
from lifecycle.store.transitions import Store
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Role
from tests.joining import join
from tests.known_faults.core.kit import ended, held_within, record_of
from tests.known_faults.core.replicas import (
    MODEL,
    call,
    dump_shard,
    frontend,
    quick_settings,
    restore_shard,
    served,
    worker,
)
from tests.waiting import wait_until

_RID, _DEAD = "r1", "worker-dead"
_HEARTBEATS = 16  # four leases of 0.8 s


async def _engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    yield "a"


async def _run_at_a_worker_that_dies(tracker: Tracker) -> None:
    """Bring the request to its first token at a worker that is silent from then on."""
    store = tracker.store
    await join(store, _DEAD, Role.WORKER, {}, [MODEL])
    await tracker.admit(call(_RID))
    assert await store.take(0, _DEAD, 1, "nonce-01", [MODEL], 1)
    assert await store.append(0, _DEAD, [Append(_RID, 1, 1, orjson.dumps(["a"]), True)]) == []


async def _ends_in_time(store: Store, replica: str) -> bool:
    async def is_over() -> bool:
        return await ended(store, _RID)

    return await held_within(store, replica, _HEARTBEATS, is_over)


async def test_a_request_ends_whose_worker_died_when_the_leases_were_lost() -> None:
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, lease_secs=0.8, heartbeat_secs=0.2, queue_without_workers=True)
        async with frontend(settings) as tracker:
            store = tracker.store
            await _run_at_a_worker_that_dies(tracker)
            restore_shard(server, store.keys.control, {})

            async with worker(settings, _engine):
                await served(tracker)
                assert await _ends_in_time(store, tracker.id), await record_of(store, _RID)


async def test_a_request_ends_whose_worker_died_when_the_reaping_was_lost() -> None:
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, lease_secs=0.8, heartbeat_secs=0.2, queue_without_workers=True)
        async with frontend(settings) as tracker:
            store = tracker.store
            prefix = store.keys.prefixes[0]
            await _run_at_a_worker_that_dies(tracker)
            before = dump_shard(server, prefix)

            async def is_cleaned_up() -> bool:
                expired = await store.command("EXISTS", f"{prefix}fenced:{_DEAD}")
                return bool(expired) and not await store.command("HEXISTS", prefix + "pending_cleanup", _DEAD)

            await wait_until(is_cleaned_up, what="a worker that was reaped")
            assert await ended(store, _RID)
            restore_shard(server, prefix, before)
            assert not await ended(store, _RID)

            async with worker(settings, _engine):
                await served(tracker)
                assert await _ends_in_time(store, tracker.id), await record_of(store, _RID)
