"""A connection on which Redis speaks unasked; rebuilt when it dies or falls silent.

What was published while it was down is lost, so whoever listens reads again what was written durably.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.aio.watchdog import StallTimeout
from lifecycle.errors import StoreUnavailable
from lifecycle.store.link import PushLink, connected

log = logging.getLogger(__name__)

PROBE_SECS = 2.0
_LONGEST_PAUSE_SECS = 1.0


class Source(NamedTuple):
    """Where to listen. `client` is asked at each connect: in a Cluster the next one may be another node's."""

    client: Callable[[], Awaitable[Redis]]
    timeout_secs: float
    left: set[Callable[[], None]]  # called when the server is left, because it has become a replica


class Listener:
    """`run()` is owned by the caller's task group."""

    def __init__(self, what: str, source: Source) -> None:
        """`what`: for the log."""
        self._what = what
        self._source = source
        self._timeout_secs = source.timeout_secs
        self._link: PushLink | None = None
        self._heard = False  # since the last look
        self._works = False  # something was heard over this connection

    @abstractmethod
    def _greeting(self) -> Iterable[tuple[str, ...]]:
        """The commands with which a new connection begins."""

    @abstractmethod
    def _take(self, replies: list[Any]) -> None:
        """These came at once, and none is an error; such a one, and what this raises, costs the connection."""

    async def run(self) -> None:
        self._source.left.add(self._leave)
        try:
            await self._live()
        finally:
            self._source.left.discard(self._leave)

    async def _live(self) -> None:
        pause = 0.0
        while True:
            self._works = False
            try:
                await self._serve()
            except (RedisError, OSError, StoreUnavailable) as failure:
                tasks.check_cancelled()
                log.warning("%s lost: %s", self._what, failure)
            finally:
                if self._link is not None:
                    self._link.close()
                    self._link = None
            pause = 0.02 if self._works else min(pause * 2 + 0.02, _LONGEST_PAUSE_SECS)
            await asyncio.sleep(pause)

    async def _serve(self) -> None:
        """Until the link is lost, or answers no probe."""
        async with StallTimeout(self._timeout_secs):
            link = self._link = PushLink(await connected(await self._source.client()), self._hear)
        link.send("PING")  # a server that still loads its data confirms subscriptions, but answers this with an error
        for command in self._greeting():
            link.send(*command)
        probing = False
        while True:
            self._heard = False
            await asyncio.wait((link.lost,), timeout=self._timeout_secs if probing else PROBE_SECS)
            if link.lost.done():
                raise link.lost.result()
            if not self._heard and probing:
                raise ConnectionError("the connection does not answer")
            probing = not self._heard
            if probing:
                link.send("PING")

    def _leave(self) -> None:
        """A demoted server answers every probe, and may never hear what is published at its successor."""
        if self._link is not None:
            self._link.drop(ConnectionError("the server has become a replica"))

    def _hear(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        self._heard = self._works = True
        self._take(replies)

    def _send(self, *args: str) -> None:
        """Without a link nothing is sent: the next one's greeting says everything that is still wanted."""
        if self._link is not None and not self._link.lost.done():
            self._link.send(*args)
