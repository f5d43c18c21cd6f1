"""Own the tasks that a frontend runs for single requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from lifecycle.aio import tasks
from lifecycle.errors import StoreError

log = logging.getLogger(__name__)


class BackgroundTasks:
    """Run coroutines until `close()`. A failure is logged, since it concerns one request only."""

    def __init__(self) -> None:
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` as a task; `name` is for the log. After `close()` it is dropped."""
        if self._closed:
            work.close()
            return
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, StoreError):
            log.warning("%s: %s", task.get_name(), failure)
        elif failure is not None:
            log.error("%s failed", task.get_name(), exc_info=failure)

    async def wait(self, timeout_secs: float) -> None:
        """Wait until the tasks that run now have ended, for at most `timeout_secs`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_secs)

    async def close(self) -> None:
        """Take no more work, and cancel and await what still runs."""
        self._closed = True
        await tasks.end(tuple(self._tasks))
