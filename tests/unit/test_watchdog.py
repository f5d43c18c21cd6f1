"""A stall timeout counts the time of waiting, without the delays of the event loop itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from lifecycle.aio.watchdog import StallTimeout

LIMIT_SECS = 0.4


async def test_silence_ends_it() -> None:
    with pytest.raises(TimeoutError):
        async with StallTimeout(LIMIT_SECS):
            await asyncio.Event().wait()


async def test_an_answer_that_came_while_the_loop_was_blocked_is_an_answer() -> None:
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with StallTimeout(LIMIT_SECS):
        loop.call_later(LIMIT_SECS / 2, answered.set)
        time.sleep(2 * LIMIT_SECS)
        await answered.wait()


async def test_what_comes_renews_it() -> None:
    async with StallTimeout(LIMIT_SECS) as timeout:
        for _ in range(4):
            await asyncio.sleep(LIMIT_SECS / 2)
            timeout.renew()


async def test_a_cancellation_from_outside_keeps_its_meaning() -> None:
    async def waits() -> None:
        async with StallTimeout(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
