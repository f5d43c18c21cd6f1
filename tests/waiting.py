"""Waiting for a condition instead of for a time: a test is as fast as the machine allows and no faster."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")
_FIRST_PAUSE_SECS = 0.002
_LONGEST_PAUSE_SECS = 0.05
_BLOCKING_PAUSE_SECS = 0.01


@overload
async def wait_until(condition: Callable[[], Awaitable[T | None]], timeout: float = ..., what: str = ...) -> T: ...
@overload
async def wait_until(condition: Callable[[], T | None], timeout: float = ..., what: str = ...) -> T: ...
async def wait_until(condition: Callable[[], Any], timeout: float = 10.0, what: str = "the condition") -> Any:
    """The first truthy result of `condition`, plain or async. Fails with the last result after `timeout` seconds."""
    give_up_at, pause = time.monotonic() + timeout, _FIRST_PAUSE_SECS
    while True:
        result = condition()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what} did not come true within {timeout:g} s; it was {value!r} last")
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECS)


def block_until(condition: Callable[[], object], what: str, timeout_secs: float = 10.0) -> None:
    """Wait as `wait_until` does, where there is no event loop."""
    give_up_at = time.monotonic() + timeout_secs
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what} did not come true within {timeout_secs:g} s")
        time.sleep(_BLOCKING_PAUSE_SECS)
