"""Connection status, connection handles, and the monitor that acts when one is lost.

The metaphor is a channel whose sender is dropped: whoever holds an armed handle and loses it, by an exception, a
cancellation or a return that was not meant, has told that the connection closed unexpectedly. After NVIDIA Dynamo's
HTTP frontend (`http/service/disconnect.rs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

    def __init__(self, status: ConnectionStatus, on_told: Callable[[ConnectionStatus], None]) -> None:
        """`on_told` must not keep the handle alive."""
        self._status = status
        self._on_told: Callable[[ConnectionStatus], None] | None = on_told
        self._loop = asyncio.get_running_loop()

    def arm(self) -> None:
        self._status = ConnectionStatus.CLOSED_UNEXPECTEDLY

    def disarm(self) -> None:
        self._status = ConnectionStatus.CLOSED_GRACEFULLY

    def close(self) -> None:
        on_told, self._on_told = self._on_told, None
        if on_told is not None:
            on_told(self._status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A handle that nobody holds any more is lost, in whichever thread and in the middle of whatever; the loop may
        # be gone by then.
        on_told = getattr(self, "_on_told", None)
        if on_told is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(on_told, self._status)


class ConnectionMonitor:
    """Watches one client: first the connection until a response begins, then the stream of that response.

    `on_closed` is called exactly once, with the status that decides: an unexpected loss in either phase, else how the
    stream ended; a stream handle that was never armed leaves the decision to the connection.
    """

    def __init__(self, on_closed: Callable[[ConnectionStatus], None]) -> None:
        self._on_closed = on_closed
        self._connection: ConnectionStatus | None = None
        self._stream: ConnectionStatus | None = None
        self._decided = False

    def handles(self) -> tuple[ConnectionHandle, ConnectionHandle]:
        """Of the connection, armed, and of the stream, disabled. They are the caller's to hold; once."""
        return (
            ConnectionHandle(ConnectionStatus.CLOSED_UNEXPECTEDLY, self._on_connection),
            ConnectionHandle(ConnectionStatus.DISABLED, self._on_stream),
        )

    def _on_connection(self, status: ConnectionStatus) -> None:
        self._connection = status
        self._decide()

    def _on_stream(self, status: ConnectionStatus) -> None:
        self._stream = status
        self._decide()

    def _decide(self) -> None:
        status = self._connection
        if self._decided or status is None:
            return
        if status is not ConnectionStatus.CLOSED_UNEXPECTEDLY:
            if self._stream is None:
                return
            status = status if self._stream is ConnectionStatus.DISABLED else self._stream
        self._decided = True
        self._on_closed(status)
