"""Redis keeps snapshots only, as it does by default, is killed, and comes back with one from before a request's end.

The shard's epoch is in the snapshot too, so nobody notices the loss: what had ended runs again. Expected: a request
that has ended does not run again, and counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.types import Status
from tests.known_faults.core.kit import counted, ended, heartbeats, record_of
from tests.known_faults.core.replicas import call, frontend, quick_settings, served, worker
from tests.servers import ask
from tests.waiting import wait_until


class _Seen(NamedTuple):
    """The state of the request after the restart."""

    runs: int
    status: Status
    counts: tuple[int, int]


async def _restart_with_an_earlier_snapshot() -> _Seen:
    runs, go_on = 0, asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        nonlocal runs
        runs += 1
        await go_on.wait()
        yield "answer"

    with EmbeddedRedis(port=0, config={"save": "3600 1"}) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, engine) as serving:
            store = tracker.store
            await served(tracker)
            await tracker.admit(call("job"))
            await wait_until(lambda: runs, what="a running engine")
            await heartbeats(store, serving.id, 2)  # the worker knows the epoch
            ask(server, "SAVE")
            go_on.set()
            await wait_until(lambda: ended(store, "job"), what="the first end")
            await wait_until(lambda: counted([tracker])[1] == 1, what="the first end's count")

            server.kill()
            server.start()
            await wait_until(lambda: ended(store, "job"), what="the end after the restart")
            await wait_until(lambda: len(tracker.owned) == 0, what="a frontend without requests")
            await heartbeats(store, tracker.id, 2)
            record = await record_of(store, "job")
            return _Seen(runs, record.status, counted([tracker]))


async def test_what_has_ended_does_not_run_again_after_a_restart_from_an_earlier_snapshot() -> None:
    seen = await _restart_with_an_earlier_snapshot()
    assert (seen.runs, seen.status) == (1, "completed")


async def test_what_has_ended_counts_once_after_a_restart_from_an_earlier_snapshot() -> None:
    seen = await _restart_with_an_earlier_snapshot()
    assert seen.counts == (1, 1)
