"""Redis is away for somewhat more than a lease, just when a worker has been handed requests that it is about to start.

The worker gives their starts up, and reads them again once, as many as it then has room for. Those beyond that number
stay in the queue beside an idle worker, for good. Expected: all of them run.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import FaultProxy, Then, script
from tests.known_faults.core.kit import heartbeats, held_within, queue_is_open, record_of
from tests.known_faults.core.replicas import MODEL, call, frontend, quick_settings, served, worker
from tests.waiting import wait_until

_REQUESTS = 8
_HEARTBEATS = 8
_FIRST = "first"  # by it the worker has run a script `start`, which is loaded then


async def test_every_delivery_whose_start_failed_runs_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    ran: set[str] = set()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        ran.add(context.id)
        yield "x"

    def failures() -> int:
        return sum("could not be started" in record.getMessage() for record in caplog.records)

    with EmbeddedRedis(port=0) as server, caplog.at_level(logging.WARNING, "lifecycle.execution.worker"):
        # Nobody looks for the dead meanwhile: the worker keeps its identity.
        settings = quick_settings(server.url, lease_secs=1.2, heartbeat_secs=0.3, sweep_secs=60.0)
        theirs = settings.model_copy(update={"concurrency": _REQUESTS, "redis_timeout_secs": 0.5})
        async with FaultProxy(server.url) as proxy, frontend(settings) as tracker:
            theirs = theirs.model_copy(update={"redis_url": proxy.url})
            async with worker(theirs, engine) as serving:
                store, rids = tracker.store, {f"r{number}" for number in range(_REQUESTS)}
                await queue_is_open(store)
                await served(tracker)
                await tracker.admit(call(_FIRST))
                await wait_until(lambda: _FIRST in ran, what="a first request that runs")
                lost = proxy.on_request(script("start"), Then.LOSE)
                for rid in sorted(rids):
                    await tracker.admit(call(rid))
                await lost.fired()

                async def all_handed_over() -> bool:
                    key = f"{store.keys.prefixes[0]}queue:{MODEL}"
                    pending = await store.command("XPENDING", key, "workers")
                    return int(pending[0]) == _REQUESTS

                await wait_until(all_handed_over, what="a worker that was handed every request")
                proxy.cut()
                await wait_until(lambda: failures() == _REQUESTS, what="starts that are given up")
                proxy.restore()
                await heartbeats(store, serving.id, 1)

                async def all_ran() -> bool:
                    return rids <= ran

                complete = await held_within(store, serving.id, _HEARTBEATS, all_ran)
                left = {rid: (await record_of(store, rid)).status for rid in sorted(rids - ran)}
                assert complete, f"did not run: {left}"
