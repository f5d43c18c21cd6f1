"""Notices that a client has gone, by listening for it: an idle response is ended too, not only one that writes."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from lifecycle.fastapi.client_connection import ClientConnection


class CancelOnDisconnect:
    """`with CancelOnDisconnect(peer) as client:` cancels its block once the client disconnects, and says so in `gone`.

    As asyncio.timeout does: that cancellation ends with the block, one from outside goes on.
    """

    def __init__(self, peer: ClientConnection) -> None:
        self._peer = peer
        self._task: asyncio.Task[Any] | None = None  # while it listens
        self.gone = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._peer.listen(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._peer.unlisten(self._hear)
        task, self._task = self._task, None
        assert task is not None
        return self.gone and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError

    def _hear(self) -> None:
        if self._task is not None and not self.gone:
            self.gone = True
            self._task.cancel()
