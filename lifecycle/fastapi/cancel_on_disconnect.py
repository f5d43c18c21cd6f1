"""Cancel work for an HTTP client as soon as that client disconnects."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from lifecycle.fastapi.client_connection import AsgiConnection, ClientConnection


class CancelOnDisconnect:
    """Cancel the block of `with CancelOnDisconnect(connection) as client:` once the client disconnects.

    The disconnect is noticed even while nothing is written. As with `asyncio.timeout`, a cancellation caused by the
    disconnect ends with the block and `client.disconnected` is then true; a cancellation from outside is passed on.
    """

    def __init__(
        self, connection: ClientConnection | AsgiConnection, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """`loop` is the running one: to find it is a system call in Python 3.11."""
        self._connection = connection
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None  # set inside the block
        self.disconnected = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._connection.add_disconnect_callback(self._on_disconnect)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._connection.remove_disconnect_callback(self._on_disconnect)
        task, self._task = self._task, None
        assert task is not None
        return self.disconnected and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError

    def _on_disconnect(self) -> None:
        if self._task is not None and not self.disconnected:
            self.disconnected = True
            self._task.cancel()
