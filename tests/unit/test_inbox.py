"""An inbox ends when it is told to, whatever becomes of the cancellation on its way, and says when it fell behind."""

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
    inbox = Inbox(cast(Any, client), "inbox", lambda *_: None, lambda: None)

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


class Backlog:
    """Answers each read with so many frames, then waits."""

    def __init__(self, *reads: int) -> None:
        self._reads = list(reads)
        self.read_all = asyncio.Event()

    async def execute(self, *_: Any) -> list[Any]:
        if not self._reads:
            self.read_all.set()
            await asyncio.Event().wait()
        return [[b"inbox", [[b"1-1", [b"f", b"[]"]]] * self._reads.pop(0)]]


@pytest.mark.parametrize(
    ("reads", "told"), [((256, 256, 256, 3), 0), ((256, 256, 256, 256, 0), 1), ((256, 3, 256, 256, 256, 3), 0)]
)
async def test_who_was_so_far_behind_that_frames_were_trimmed_says_so(reads: tuple[int, ...], told: int) -> None:
    backlog, behind = Backlog(*reads), []
    inbox = Inbox(cast(Any, backlog), "inbox", lambda *_: None, lambda: behind.append(1))
    reading = asyncio.create_task(inbox.run())
    await backlog.read_all.wait()
    await tasks.end((reading,))
    assert len(behind) == told
