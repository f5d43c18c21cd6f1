"""After Redis has lost its data, a worker's reconciliation must not fail at every heartbeat from then on.

BUSY means "away for now", and other errors do not. A lost cancel comes again with the next heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import ResponseError

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.redis_errors import unavailable
from tests.known_faults.core.kit import ended, heartbeats, held_within, killed_while_nobody_hears
from tests.known_faults.core.replicas import call, frontend, quick_settings, served, worker
from tests.servers import ask
from tests.waiting import wait_until

_HEARTBEATS = 4


def test_a_busy_redis_is_away_for_now() -> None:
    assert unavailable(ResponseError("BUSY Redis is busy running a script.")) is not None


async def _a_lost_cancel_comes_again(flushed: bool) -> bool:
    """Return whether a request ended whose cancel's message was lost; before it, Redis lost its data if `flushed`."""
    running = asyncio.Event()

    async def silent(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        running.set()  # a refused append would tell the worker of its loss, so there is none
        await asyncio.Event().wait()
        yield "never"

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, lease_secs=1.0, heartbeat_secs=0.4, drain_timeout_secs=0.0)
        async with frontend(settings) as tracker, worker(settings, silent) as serving:
            store = tracker.store
            await served(tracker)
            await heartbeats(store, serving.id, 2)
            if flushed:
                ask(server, "FLUSHALL")
                await heartbeats(store, serving.id, 1)
                await served(tracker)
            await tracker.admit(call("r1"))
            await wait_until(running.is_set, what="a running engine")
            await killed_while_nobody_hears(store, "r1")
            return await held_within(store, serving.id, _HEARTBEATS, lambda: ended(store, "r1"))


async def test_a_lost_cancel_comes_again_with_a_heartbeat() -> None:
    assert await _a_lost_cancel_comes_again(flushed=False)


async def test_a_lost_cancel_comes_again_with_a_heartbeat_after_redis_has_lost_its_data() -> None:
    assert await _a_lost_cancel_comes_again(flushed=True)
