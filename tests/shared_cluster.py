"""One cluster of processes for many tests, each of which has an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager

import httpx2

from tests.cluster import Cluster
from tests.conftest import inspect_and_clear
from tests.waiting import wait_until

TIMEOUT_SECS = 30.0


@contextmanager
def shared_cluster(started: AbstractAsyncContextManager[Cluster]) -> Iterator[Cluster]:
    """Keep a cluster up for a fixture of a module or package. Fails when it has left anything in Redis.

    Its HTTP client belongs to another event loop: tests take the cluster from `borrowed`.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        try:
            cluster = runner.run(stack.enter_async_context(started))
            yield cluster
        finally:
            runner.run(stack.aclose())
        found = runner.run(inspect_and_clear(cluster.settings.redis_url, cluster.settings.namespace, False))
    assert not found, "left in Redis:\n  " + "\n  ".join(found)


@asynccontextmanager
async def borrowed(shared: Cluster) -> AsyncIterator[Cluster]:
    """Give a test the shared cluster with an HTTP client of its own, then wait until no request is inflight."""
    async with httpx2.AsyncClient(timeout=TIMEOUT_SECS, trust_env=False) as http:
        own = Cluster(shared.settings, shared.directory, http, [*shared.frontends], [*shared.workers])
        yield own

        async def idle() -> bool:
            return await own.inflight() == 0

        await wait_until(idle, what="an idle cluster")
