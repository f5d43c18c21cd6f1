"""Watch a client's connection by handles that report how it was closed, even if they are only dropped.

It works as a channel whose sender is dropped: losing an armed handle, by an exception, a cancellation or an early
return, reports that the connection closed unexpectedly. After NVIDIA Dynamo's HTTP frontend
(`http/service/disconnect.rs`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self


class ConnectionStatus(StrEnum):
    """Name how a connection was closed; `disabled` leaves the decision to another handle."""

    DISABLED = "disabled"
    CLOSED_UNEXPECTEDLY = "closed_unexpectedly"
    CLOSED_GRACEFULLY = "closed_gracefully"


# Global names: Python 3.11 takes twenty times as long to look a member up in its enum.
_DISABLED, _UNEXPECTED, _GRACEFUL = ConnectionStatus


class ConnectionHandle:
    """Represent one side of a connection. Closing or losing it reports its status exactly once.

    An armed handle reports `closed_unexpectedly`, a disarmed one `closed_gracefully`, a disabled one `disabled`.
    """

    def __init__(
        self, status: ConnectionStatus, on_closed: Callable[[ConnectionStatus], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """`on_closed` is called in `loop`. It must not keep the handle alive."""
        self._status = status
        self._on_closed: Callable[[ConnectionStatus], None] | None = on_closed
        self._loop = loop

    def arm(self) -> None:
        """Report `closed_unexpectedly` from now on."""
        self._status = _UNEXPECTED

    def disarm(self) -> None:
        """Report `closed_gracefully` from now on."""
        self._status = _GRACEFUL

    def close(self) -> None:
        """Report the status. A second call does nothing."""
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed(self._status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Called by the garbage collector when nothing refers to the handle any more: in any thread, at any point, and
        # perhaps after the loop was closed.
        on_closed = getattr(self, "_on_closed", None)
        if on_closed is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(on_closed, self._status)


class ConnectionMonitor:
    """Watch one client: the connection until a response begins, then the stream of that response.

    `on_closed` is called exactly once, with the decisive status: an unexpected loss in either phase, else how the
    stream was closed. A stream handle that was never armed leaves the decision to the connection.
    """

    def __init__(self, on_closed: Callable[[ConnectionStatus], None], loop: asyncio.AbstractEventLoop) -> None:
        self._on_closed = on_closed
        self._loop = loop
        self._connection: ConnectionStatus | None = None
        self._stream: ConnectionStatus | None = None
        self._decided = False

    def handles(self) -> tuple[ConnectionHandle, ConnectionHandle]:
        """Return the handle of the connection, armed, and of the stream, disabled. The caller must hold them.

        Call it once.
        """
        return (
            ConnectionHandle(_UNEXPECTED, self._on_connection, self._loop),
            ConnectionHandle(_DISABLED, self._on_stream, self._loop),
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
        if status is not _UNEXPECTED:
            if self._stream is None:
                return
            status = status if self._stream is _DISABLED else self._stream
        self._decided = True
        self._on_closed(status)
