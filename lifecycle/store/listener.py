"""A connection on which Redis sends published messages. It is reopened when it is lost or does not answer a probe.

Messages published while it is down are lost, so after each reconnect the subscriber reads the durable state again.
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
from lifecycle.store.shared_link import LinkShare, SharedLinks

log = logging.getLogger(__name__)

PROBE_SECS = 2.0
_LONGEST_PAUSE_SECS = 1.0


class ConnectionFactory(NamedTuple):
    """The way to open a listener's connection.

    `client` is called at each connect, because in a Redis Cluster the slot may have moved to another node.
    """

    client: Callable[[], Awaitable[Redis]]
    timeout_secs: float  # for connecting, and for the answer to a probe
    on_demotion: set[Callable[[], None]]  # called when the server has become a replica
    shared: SharedLinks | None = None  # by which listeners share connections; without it each has its own

    async def open(self, on_push: Callable[[list[Any]], None]) -> PushLink | LinkShare:
        """Connect; `on_push` is called with all replies that came in one read. Raises RedisError and OSError."""
        client = await self.client()
        if self.shared is not None:
            return await self.shared.open(client, on_push)
        return PushLink(await connected(client), on_push)


class Listener:
    """Base of the listeners. The caller runs `run()` in a task of its own."""

    def __init__(self, name: str, factory: ConnectionFactory) -> None:
        """`name` stands for the connection in the log."""
        self._name = name
        self._factory = factory
        self._timeout_secs = factory.timeout_secs
        self._link: PushLink | LinkShare | None = None
        self._heard = False  # something was received since the last check
        self._works = False  # something was received over this connection

    @abstractmethod
    def _greeting(self) -> Iterable[tuple[str, ...]]:
        """Return the commands to send first on a new connection."""

    @abstractmethod
    def _take(self, replies: list[Any]) -> None:
        """Handle the replies of one read, none of which is an error. An exception raised here closes the connection."""

    async def run(self) -> None:
        """Listen until cancelled, and reconnect with growing pauses. Errors of the connection are logged."""
        self._factory.on_demotion.add(self._leave)
        try:
            await self._reconnect_forever()
        finally:
            self._factory.on_demotion.discard(self._leave)

    async def _reconnect_forever(self) -> None:
        pause = 0.0
        while True:
            self._works = False
            try:
                await self._serve()
            except (RedisError, OSError, StoreUnavailable) as failure:
                tasks.check_cancelled()
                log.warning("The Redis connection for %s was lost and is reopened: %s", self._name, failure)
            finally:
                if self._link is not None:
                    self._link.close()
                    self._link = None
            pause = 0.02 if self._works else min(pause * 2 + 0.02, _LONGEST_PAUSE_SECS)
            await asyncio.sleep(pause)

    async def _serve(self) -> None:
        """Connect and listen. Raises the reason when the connection is lost or does not answer a probe in time."""
        async with StallTimeout(self._timeout_secs):
            link = self._link = await self._factory.open(self._hear)
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
                raise ConnectionError(f"no answer to a probe within {self._timeout_secs:g} seconds")
            probing = not self._heard
            if probing:
                link.send("PING")

    def _leave(self) -> None:
        """Close the connection to a demoted server: it still answers probes, but may get no more messages."""
        if self._link is not None:
            self._link.drop(ConnectionError("the server has become a replica"))

    def _hear(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        self._heard = self._works = True
        self._take(replies)

    def _send(self, *args: str) -> None:
        """Send a command if there is a connection. The greeting of the next one includes everything still wanted."""
        if self._link is not None and not self._link.lost.done():
            self._link.send(*args)
