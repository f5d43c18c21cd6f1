"""Run many calls in bounded batches, and end tasks reliably."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar

_AGAIN_SECS = 0.2
_AT_ONCE = 200

Item = TypeVar("Item")
Result = TypeVar("Result")

Spawn = Callable[[Coroutine[Any, Any, None], str], None]
"""Starts a task under a name and owns it. An exception that the task raises is logged."""


def check_cancelled() -> None:
    """Raise CancelledError if the current task was cancelled and the cancellation was swallowed (see `end`).

    It is called in loops that continue after errors. `asyncio.wait_for`, through which redis-py sends, returns the
    result when it is cancelled at the moment at which the result comes (CPython 3.11). A task group cancels its tasks
    once, so it would wait for ever for a task whose cancellation was lost.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(tasks: Collection[asyncio.Task[Any]], timeout_secs: float = math.inf) -> Collection[asyncio.Task[Any]]:
    """Cancel the tasks, again and again until each has ended, and await them; return those that have not.

    Tasks that run code of others, as an engine's, are given a `timeout_secs`: nothing can end what swallows each
    cancellation.

    A cancellation can be lost when a timeout fires in the same turn of the loop and a library turns one into the other,
    as the reads of redis-py do: the task then continues as if it had not been cancelled.
    """
    pending = {task for task in tasks if not task.done()}
    give_up_at = time.monotonic() + timeout_secs
    while pending and (left_secs := give_up_at - time.monotonic()) > 0:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=min(_AGAIN_SECS, left_secs))
    return pending


async def in_batches(
    function: Callable[[Item], Awaitable[Result]], items: Sequence[Item], at_once: int = _AT_ONCE
) -> list[Result]:
    """Call a function for each item, at most `at_once` at a time, and return the results in order.

    The first exception is raised when all calls of its batch have ended; no later batch is begun.
    """
    results: list[Result] = []
    for first in range(0, len(items), at_once):
        batch = items[first : first + at_once]
        for outcome in await asyncio.gather(*map(function, batch), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
    return results
