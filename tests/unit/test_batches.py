"""Many calls are made in batches: in order, few at a time, and none is left running after an error."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.aio import tasks


async def test_results_come_in_order_from_few_calls_at_a_time() -> None:
    running, most = 0, 0

    async def double(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10 - number):  # the first ones end last
            await asyncio.sleep(0)
        running -= 1
        return 2 * number

    assert await tasks.in_batches(double, range(10), at_once=4) == [2 * number for number in range(10)]
    assert most == 4


async def test_an_error_is_raised_once_its_batch_has_ended() -> None:
    ended: list[int] = []

    async def fail_at_0(number: int) -> None:
        if number == 0:
            raise ValueError(number)
        await asyncio.sleep(0)
        ended.append(number)

    with pytest.raises(ValueError, match="0"):
        await tasks.in_batches(fail_at_0, range(6), at_once=3)
    assert ended == [1, 2]
