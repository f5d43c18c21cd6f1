"""An inbox ends when it is told to, whatever becomes of the cancellation on its way."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from lifecycle import tasks
from lifecycle.tokens.inbox import Inbox

BOUND_SECS = 5.0


class Swallows:
    """A connection that answers when it is cancelled, as asyncio.wait_for can."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()

    async def execute(self, *_: Any) -> list[Any]:
        self.reading.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return []


async def test_a_swallowed_cancellation_does_not_hold_up_its_task_group() -> None:
    client = Swallows()
    inbox = Inbox(cast(Any, client), "inbox", lambda *_: None)

    async def live() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(inbox.run())
            await asyncio.Event().wait()

    living = asyncio.create_task(live())
    await client.reading.wait()
    async with asyncio.timeout(BOUND_SECS):
        await tasks.end((living,))
    with pytest.raises(asyncio.CancelledError):
        await living
