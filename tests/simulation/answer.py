"""The answer to one call: the frontend fills it, and the client waits for it or leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lifecycle.types import RequestRecord
from tests.chaos.audit.history import How, Seen, Token


class Answer:
    """Hold what has come of an answer so far. `over` is set when nothing more comes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.code = 0
        self.answered_at = float("inf")
        self.tokens: list[Token] = []
        self.error = ""
        self.done = False
        self.text = ""
        self.attached = False
        self.record: Seen | None = None
        self.total = 0
        self.how = How.WHOLE
        self.over = False
        self.left = False  # the client has gone
        self.on_leave: Callable[[], None] | None = None
        self._clock = clock
        self._changed: asyncio.Future[None] | None = None

    # The frontend's side

    def begin(self, code: int, error: str = "") -> None:
        """Send the status line."""
        if self.code == 0:
            self.code, self.error, self.answered_at = code, error, self._clock()
        self.change()

    def change(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def end(self, how: How = How.WHOLE) -> None:
        """Let nothing more come."""
        if not self.over:
            self.over, self.how = True, how
            self.change()

    def show(self, record: RequestRecord) -> None:
        self.record = Seen(record.status.value, record.error_type, record.attempt, record.finished_at)

    # The client's side

    async def wait(self, enough: Callable[[], bool]) -> None:
        """Wait until the answer is over or there is enough of it."""
        while not self.over and not enough():
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed

    def leave(self) -> None:
        """Let the frontend notice that the client has gone."""
        self.left = True
        if self.on_leave is not None:
            self.on_leave()


class UntilLeft:
    """Cancel the block when the client leaves, as lifecycle.fastapi.cancel_on_disconnect does."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._answer.on_leave = self._cancel
        if self._answer.left:
            self._cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._answer.on_leave = None
        task, self._task = self._task, None
        assert task is not None
        return self._answer.left and task.uncancel() <= 0 and kind is asyncio.CancelledError

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
