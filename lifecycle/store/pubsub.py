"""Subscriptions to channels, over one connection that is rebuilt when it dies or falls silent.

Pub/sub is a hint: what was published while a connection was down is lost, so every subscriber is told of the gap and
reads again what was written durably.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import orjson
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from lifecycle import tasks
from lifecycle.errors import StoreUnavailable
from lifecycle.patience import Patience

log = logging.getLogger(__name__)

PROBE_SECS = 2.0
_LONGEST_PAUSE_SECS = 1.0

Message = dict[str, Any]


class Subscription:
    """One listener on one channel."""

    __slots__ = ("channel", "on_gap", "on_message")

    def __init__(self, channel: str, on_message: Callable[[Message], None], on_gap: Callable[[], None]) -> None:
        self.channel = channel
        self.on_message = on_message
        self.on_gap = on_gap


class _Channel:
    def __init__(self) -> None:
        self.listeners: list[Subscription] = []
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.confirmed_before = False  # a second confirmation means a reconnect, so a gap


class Subscriptions:
    """`run()` is owned by the caller's task group; `subscribe` returns once Redis has confirmed."""

    def __init__(self, client: Callable[[], Awaitable[Redis]], *, timeout_secs: float) -> None:
        """`client` is asked at each connect: in a Cluster the next one may be another node's."""
        self._client = client
        self._timeout_secs = timeout_secs
        self._channels: dict[str, _Channel] = {}
        self._connection: AbstractConnection | None = None
        self._sending = asyncio.Lock()

    async def subscribe(
        self, channel: str, on_message: Callable[[Message], None], on_gap: Callable[[], None]
    ) -> Subscription:
        """Raises StoreUnavailable when it is not confirmed in time; nothing stays subscribed then.

        `on_gap` is called after every reconnect: messages may have been missed.
        """
        subscription = Subscription(channel, on_message, on_gap)
        entry = self._channels.get(channel)
        try:
            async with Patience(self._timeout_secs):
                if entry is None:
                    entry = self._channels[channel] = _Channel()
                    entry.listeners.append(subscription)
                    await self._send("SUBSCRIBE", channel)
                else:
                    entry.listeners.append(subscription)
                await asyncio.shield(entry.confirmed)
        except TimeoutError:
            await self.unsubscribe(subscription)
            raise StoreUnavailable("Redis did not confirm a subscription in time") from None
        except BaseException:
            self._forget(subscription)
            raise
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        if self._forget(subscription):
            with suppress(TimeoutError):
                async with Patience(self._timeout_secs):
                    await self._send("UNSUBSCRIBE", subscription.channel)

    def _forget(self, subscription: Subscription) -> bool:
        """True when the channel has no listener left."""
        entry = self._channels.get(subscription.channel)
        if entry is None or subscription not in entry.listeners:
            return False
        entry.listeners.remove(subscription)
        if entry.listeners:
            return False
        del self._channels[subscription.channel]
        return True

    async def run(self) -> None:
        pause = 0.0
        while True:
            try:
                await self._serve()
            except (RedisError, OSError, StoreUnavailable) as failure:
                tasks.check_cancelled()
                log.warning("subscriptions lost: %s", failure)
            finally:
                await self._drop()
            pause = min(pause * 2 + 0.02, _LONGEST_PAUSE_SECS)
            await asyncio.sleep(pause)

    async def _serve(self) -> None:
        pool: Any = (await self._client()).connection_pool
        connection: AbstractConnection = pool.make_connection()
        await cast(Any, connection).connect()
        self._connection = connection
        for channel in list(self._channels):
            await self._send("SUBSCRIBE", channel)
        probing = False
        while True:
            tasks.check_cancelled()
            wait_secs = self._timeout_secs if probing else PROBE_SECS
            reply: Any = await connection.read_response(timeout=wait_secs, disconnect_on_error=False)
            if reply is not None:
                probing = False
                await self._take(reply)
            elif probing:
                raise ConnectionError("the subscription link does not answer")
            else:  # nothing came, which redis-py answers with None where a timeout is given
                probing = True
                await self._send("PING")

    async def _take(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) != 3:
            return
        kind, channel = bytes(reply[0]), reply[1].decode() if isinstance(reply[1], bytes) else ""
        entry = self._channels.get(channel)
        if entry is None:
            if kind in (b"subscribe", b"message"):  # of somebody who was cancelled before it was confirmed
                await self._send("UNSUBSCRIBE", channel)
            return
        if kind == b"message":
            try:
                message = orjson.loads(reply[2])
            except ValueError:
                log.error("a message on %s is not JSON: %.200r", channel, reply[2])
                return
            for listener in list(entry.listeners):
                try:
                    listener.on_message(message)
                except Exception:  # anybody can publish anything
                    log.exception("a message on %s could not be handled", channel)
        elif kind == b"subscribe":
            if not entry.confirmed.done():
                entry.confirmed.set_result(None)
            elif entry.confirmed_before:
                for listener in list(entry.listeners):
                    listener.on_gap()
            entry.confirmed_before = True

    async def _send(self, *args: str) -> None:
        """On a dead link nothing is sent: the reconnect subscribes to everything that is still wanted."""
        connection = self._connection
        if connection is None:
            return
        try:
            async with self._sending:
                await connection.send_command(*args, check_health=False)
        except (RedisError, OSError):
            log.debug("the subscription link broke while sending %s", args[0])

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
