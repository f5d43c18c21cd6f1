"""Notices that a client has gone, by listening for it: an idle response is ended too, not only one that writes."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive


class Hangup:
    """`async with Hangup(receive) as client:` cancels its block once the client disconnects, and says so in `gone`.

    As asyncio.timeout does: that cancellation ends with the block, one from outside goes on. The body must have been
    read before.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._listener = asyncio.create_task(self._listen(), name="disconnect listener")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> bool:
        heard = self.gone
        self._listener.cancel()
        await asyncio.wait((self._listener,))
        return heard and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()
