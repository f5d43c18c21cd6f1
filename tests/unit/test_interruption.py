"""An engine that waits is interrupted when its request is stopped or killed."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.execution.context import EngineContext
from worker.engines.interruption import Interrupted, Interruption

BOUND_SECS = 5.0


async def test_an_interruption_passes_results_and_errors_through() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with Interruption(EngineContext("r")) as interruption:
        assert await interruption.run(asyncio.sleep(0, "result")) == "result"
        with pytest.raises(TimeoutError, match="its own"):
            await interruption.run(fail())


async def test_an_interruption_cuts_every_later_await_short() -> None:
    context = EngineContext("r")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(BOUND_SECS):
        with Interruption(context) as interruption:
            loop.call_soon(context.stop)
            loop.call_soon(context.kill)
            for _ in range(3):
                with pytest.raises(Interrupted):
                    await interruption.run(loop.create_future())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_kill_may_come_while_a_stop_is_cleaned_up() -> None:
    context = EngineContext("r")

    async def read() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            context.kill()

    with Interruption(context) as interruption:
        asyncio.get_running_loop().call_soon(context.stop)
        with pytest.raises(Interrupted):
            await asyncio.wait_for(interruption.run(read()), BOUND_SECS)


async def test_a_cancellation_from_outside_stays_one() -> None:
    context = EngineContext("r")

    async def engine() -> None:
        with Interruption(context) as interruption:
            await interruption.run(asyncio.get_running_loop().create_future())

    task = asyncio.create_task(engine())
    await asyncio.sleep(0)
    context.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, BOUND_SECS)
