"""A worker inside the test's own process: real connections, and an engine that the test can look into."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from lifecycle.aio import tasks
from lifecycle.execution.engine import Engine
from lifecycle.execution.worker import Worker
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from tests.unit.world import MODEL


@asynccontextmanager
async def serving(settings: Settings, engine: Engine, models: Sequence[str] = (MODEL,)) -> AsyncIterator[Worker]:
    """Serves the world's model, or others; drained afterwards, and must then end."""
    async with Connections.open(settings) as connections:
        worker = Worker(settings, connections, models, engine)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
            worker.drain()
            async with asyncio.timeout(20):
                await running
        finally:
            await tasks.end([running])
