"""Subscriptions to channels, over one connection that is rebuilt when it dies or falls silent.

Pub/sub is a hint: what was published while a connection was down is lost, so every subscriber is told of the gap and
reads again what was written durably.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from lifecycle import tasks
from lifecycle.errors import StoreUnavailable
from lifecycle.patience import Patience
from lifecycle.store.link import PushLink, connected

log = logging.getLogger(__name__)

PROBE_SECS = 2.0
_LONGEST_PAUSE_SECS = 1.0
_AT_ONCE = 500  # channels in one command

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
        self._link: PushLink | None = None
        self._heard = False  # since the last look
        self._confirmed = False  # that this connection works

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
                    self._send("SUBSCRIBE", channel)
                else:
                    entry.listeners.append(subscription)
                await asyncio.shield(entry.confirmed)
        except TimeoutError:
            self.unsubscribe(subscription)
            raise StoreUnavailable("Redis did not confirm a subscription in time") from None
        except BaseException:
            self.unsubscribe(subscription)  # it may have been confirmed in this very turn
            raise
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        if self._forget(subscription):
            self._send("UNSUBSCRIBE", subscription.channel)

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
            self._confirmed = False
            try:
                await self._serve()
            except (RedisError, OSError, StoreUnavailable) as failure:
                tasks.check_cancelled()
                log.warning("subscriptions lost: %s", failure)
            finally:
                if self._link is not None:
                    self._link.close()
                    self._link = None
            pause = 0.02 if self._confirmed else min(pause * 2 + 0.02, _LONGEST_PAUSE_SECS)
            await asyncio.sleep(pause)

    async def _serve(self) -> None:
        """Until the link is lost, or answers no probe."""
        async with Patience(self._timeout_secs):
            link = self._link = PushLink(await connected(await self._client()), self._take)
        wanted = list(self._channels)
        for start in range(0, len(wanted), _AT_ONCE):
            link.send("SUBSCRIBE", *wanted[start : start + _AT_ONCE])
        probing = False
        while True:
            self._heard = False
            await asyncio.wait((link.lost,), timeout=self._timeout_secs if probing else PROBE_SECS)
            if link.lost.done():
                raise link.lost.result()
            if not self._heard and probing:
                raise ConnectionError("the subscription link does not answer")
            probing = not self._heard
            if probing:
                link.send("PING")

    def _take(self, reply: Any) -> None:
        self._heard = self._confirmed = True
        if not isinstance(reply, list) or len(reply) != 3:
            return
        kind, channel = bytes(reply[0]), reply[1].decode() if isinstance(reply[1], bytes) else ""
        entry = self._channels.get(channel)
        if entry is None:
            if kind in (b"subscribe", b"message"):  # of somebody who was cancelled before it was confirmed
                self._send("UNSUBSCRIBE", channel)
            return
        if kind == b"message":
            self._hand_on(channel, entry, reply[2])
        elif kind == b"subscribe":
            if not entry.confirmed.done():
                entry.confirmed.set_result(None)
            elif entry.confirmed_before:
                for listener in list(entry.listeners):
                    listener.on_gap()
            entry.confirmed_before = True

    @staticmethod
    def _hand_on(channel: str, entry: _Channel, published: bytes) -> None:
        try:
            message = orjson.loads(published)
        except ValueError:
            log.error("a message on %s is not JSON: %.200r", channel, published)
            return
        for listener in list(entry.listeners):
            try:
                listener.on_message(message)
            except Exception:  # anybody can publish anything
                log.exception("a message on %s could not be handled", channel)

    def _send(self, *args: str) -> None:
        """Without a link nothing is sent: the reconnect subscribes to everything that is still wanted."""
        if self._link is not None and not self._link.lost.done():
            self._link.send(*args)
