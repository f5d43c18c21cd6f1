"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

_AGAIN_SECS = 0.2

Spawn = Callable[[Coroutine[Any, Any, None], str], None]
"""Begins a task, under a name for the log, and owns it. What it raises is logged."""


def check_cancelled() -> None:
    """In a loop that outlives errors: raise the cancellation that was swallowed (see `end`), by an error or a result.

    `asyncio.wait_for`, which redis-py sends through, returns what is done when it is cancelled at that moment (CPython
    3.11). A task group cancels its tasks once: one whose cancellation got lost would hold it up for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel and await them. Cancels again until each has ended.

    A cancellation that meets a timeout in the same turn of the loop can be swallowed by a library that turns the one
    into the other (redis-py's reads do): the task then runs on as if it had never been asked to end.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECS)
