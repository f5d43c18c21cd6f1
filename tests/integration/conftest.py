"""The fixtures that several files of this folder share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from lifecycle.execution.engine import aclose
from tests.upstream import BOUND_SECS, Script, Upstream
from worker.engines.openai import OpenAIEngine


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Script], Awaitable[tuple[Upstream, OpenAIEngine]]]]:
    """Starts an upstream and an engine in front of it; leaves neither sockets nor tasks behind."""
    before = asyncio.all_tasks()
    running: list[tuple[asyncio.Server, OpenAIEngine]] = []

    async def start(script: Script) -> tuple[Upstream, OpenAIEngine]:
        upstream = Upstream(script)
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
        upstream.url = "http://{}:{}/v1".format(*server.sockets[0].getsockname())
        engine = OpenAIEngine(upstream.url, "secret")
        running.append((server, engine))
        return upstream, engine

    yield start
    for server, engine in running:
        await aclose(engine)
        server.close()
    gc.collect()  # what an abandoned generator would leave shows up now
    async with asyncio.timeout(BOUND_SECS):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0)
