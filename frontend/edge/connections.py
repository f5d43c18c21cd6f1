"""Hold what the connections of one frontend share: their limits, and which of them could be closed.

A connection is *unfinished* while the frontend waits for the rest of a call's head or body, and *idle* between two
calls. Only unfinished connections are looked at by the timer, so that a call which comes in one piece costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from lifecycle.settings import Settings

log = logging.getLogger(__name__)

_CHECKS = 20  # of a time limit, so that it is exceeded by a twentieth at most
_MAX_CHECK_SECS = 1.0
_LOG_SECS = 1.0
_SILENT_SECS = 1.0  # after which a connection without a head is no longer taken for one that has just been made


class EdgeConnection(Protocol):
    """Describe what the connections' limits need of each one."""

    def is_overdue(self, waited_secs: float) -> bool:
        """Return whether the client has taken too long to send what the frontend waits for."""

    def close_overdue(self) -> None:
        """Close the connection, or wait longer if its client is not to blame."""

    def close_unused(self) -> None:
        """Close the connection, which serves no call."""

    @property
    def is_unused(self) -> bool:
        """Return whether the connection waits for a call, or for the rest of one that has been answered."""


class EdgeConnections:
    """Watch the unfinished connections of one frontend, and make room when descriptors run out.

    `most` is how many connections there may be; 0 is without a limit.
    """

    def __init__(self, settings: Settings, most: int = 0) -> None:
        self.head_timeout_secs = settings.head_timeout_secs
        self.body_timeout_secs = settings.body_timeout_secs
        self.draining = False  # every response closes its connection
        self.idle: dict[EdgeConnection, None] = {}  # the longest idle first
        self._unfinished: dict[EdgeConnection, float] = {}  # when it began to wait, the longest first
        self._most = most
        self._check_secs = min(_MAX_CHECK_SECS, self.head_timeout_secs / _CHECKS, self.body_timeout_secs / _CHECKS)
        self._silent_until = 0.0  # of the log about descriptors
        self._timer: asyncio.TimerHandle | None = None

    def wait_for(self, connection: EdgeConnection) -> None:
        """Begin to measure the time for which a connection stays unfinished."""
        loop = asyncio.get_running_loop()
        self._unfinished.pop(connection, None)  # so that it becomes the last
        self._unfinished[connection] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._check_secs, self._check)

    def finish(self, connection: EdgeConnection) -> None:
        """Stop measuring: all that the frontend waited for has arrived, or the connection is lost."""
        self._unfinished.pop(connection, None)

    def _check(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection, since in list(self._unfinished.items()):
            if connection.is_overdue(now - since):
                connection.close_overdue()
        self._timer = None
        if self._unfinished:
            self._timer = asyncio.get_running_loop().call_later(self._check_secs, self._check)

    def make_room(self, newcomer: EdgeConnection, number: int) -> bool:
        """Close the most dispensable connection if the newcomer is one too many, of a number of connections.

        Return False when all others are needed. Clients that are silent come first, then idle ones, then those that
        have just connected.
        """
        if not self._most or number <= self._most:
            return True
        now = asyncio.get_running_loop().time()
        waiting = next((c for c in self._unfinished if c is not newcomer and c.is_unused), None)
        if waiting is None or now - self._unfinished[waiting] < _SILENT_SECS:
            waiting = next((c for c in self.idle if c.is_unused), waiting)
        if waiting is None:
            return False
        waiting.close_unused()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_SECS
            log.warning("closed an unused connection because descriptors run out; this is logged once a second")
        return True
