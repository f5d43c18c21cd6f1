"""A worker has confirmed a cancel, the client has been told so, and then a failover loses both.

Redis shows the request as running again. Its worker, which knows that it has ended it, gives it back to the queue, and
it runs again to its end. Expected: a request whose cancel has been confirmed stays cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.types import CancelMode, Status
from tests.known_faults.core.replicas import (
    call,
    dump_shard,
    frontend,
    quick_settings,
    restore_shard,
    served,
    worker,
)
from tests.waiting import wait_until

_CONFIRMED_WITHIN_SECS = 5.0


async def test_a_confirmed_cancel_outlives_the_loss_of_its_record() -> None:
    runs: list[int] = []

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        runs.append(context.attempt)
        if len(runs) == 1:
            await context.killed()
            return
        yield "secret"

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, engine):
            await served(tracker)
            prefix = tracker.store.keys.prefixes[0]
            await tracker.admit(call("r1"))
            await wait_until(lambda: runs, what="a run of the engine")
            before_the_cancel = dump_shard(server, prefix)
            cancelled = await tracker.cancel("r1", CancelMode.KILL, "please", _CONFIRMED_WITHIN_SECS)
            assert cancelled is not None
            assert cancelled.record.status is Status.CANCELLED

            restore_shard(server, prefix, before_the_cancel)

            async def ended() -> bool:
                record = await tracker.store.read("r1")
                return record is not None and record.status.terminal

            await wait_until(ended, what="an end of the request")
            record = await tracker.store.read("r1")

    assert record is not None
    assert record.status is Status.CANCELLED
    assert runs == [1]
