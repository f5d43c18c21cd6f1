"""Connection status, connection handles, and the monitor that acts when one is lost.

The metaphor is a channel whose sender is dropped: whoever holds an armed handle and loses it, by an exception, a
cancellation or a return that was not meant, has told that the connection closed unexpectedly. After NVIDIA Dynamo's
HTTP frontend (`http/service/disconnect.rs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from types import TracebackType
from typing import Self


class ConnectionStatus(StrEnum):
    DISABLED = "disabled"
    CLOSED_UNEXPECTEDLY = "closed_unexpectedly"
    CLOSED_GRACEFULLY = "closed_gracefully"


class ConnectionHandle:
    """One side of a connection. Closing it, or losing it, tells its status exactly once.

    armed: losing it is `closed_unexpectedly`; disarmed: `closed_gracefully`; disabled: `disabled`.
    """

    def __init__(self, status: ConnectionStatus) -> None:
        self._status = status
        self._told: asyncio.Future[ConnectionStatus] = asyncio.get_running_loop().create_future()

    @classmethod
    def armed(cls) -> Self:
        return cls(ConnectionStatus.CLOSED_UNEXPECTEDLY)

    @classmethod
    def disabled(cls) -> Self:
        return cls(ConnectionStatus.DISABLED)

    def arm(self) -> None:
        self._status = ConnectionStatus.CLOSED_UNEXPECTEDLY

    def disarm(self) -> None:
        self._status = ConnectionStatus.CLOSED_GRACEFULLY

    def close(self) -> None:
        if not self._told.done():
            self._told.set_result(self._status)

    @property
    def told(self) -> asyncio.Future[ConnectionStatus]:
        """Resolves to the status once the handle is closed or lost. It does not keep the handle alive."""
        return self._told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A handle that nobody holds any more is lost; the loop may be gone by then.
        told = getattr(self, "_told", None)
        if told is not None and not told.done() and not told.get_loop().is_closed():
            told.set_result(self._status)


async def monitor_connection(
    connection: asyncio.Future[ConnectionStatus],
    stream: asyncio.Future[ConnectionStatus],
    on_closed: Callable[[ConnectionStatus], Awaitable[None]],
) -> None:
    """Watch one client: first the connection until a response begins, then the stream of that response.

    `on_closed` is called exactly once, with the status that decides: an unexpected loss in either phase, else how the
    stream ended; a stream handle that was never armed leaves the decision to the connection.
    """
    status = await connection
    if status is not ConnectionStatus.CLOSED_UNEXPECTEDLY:
        streamed = await stream
        status = status if streamed is ConnectionStatus.DISABLED else streamed
    await on_closed(status)
