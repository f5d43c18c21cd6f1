"""Subscriptions to channels, over one connection.

Pub/sub is a hint: what was published while a connection was down is lost, so every subscriber is told of the gap and
reads again what was written durably.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from lifecycle.aio.watchdog import StallTimeout
from lifecycle.errors import StoreUnavailable
from lifecycle.store.listener import Listener, Source

log = logging.getLogger(__name__)

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


class Subscriptions(Listener):
    """`subscribe` returns once Redis has confirmed."""

    def __init__(self, source: Source) -> None:
        super().__init__("subscriptions", source)
        self._channels: dict[str, _Channel] = {}

    async def subscribe(
        self, channel: str, on_message: Callable[[Message], None], on_gap: Callable[[], None]
    ) -> Subscription:
        """Raises StoreUnavailable when it is not confirmed in time; nothing stays subscribed then.

        `on_gap` is called after every reconnect: messages may have been missed.
        """
        subscription = Subscription(channel, on_message, on_gap)
        entry = self._channels.get(channel)
        try:
            async with StallTimeout(self._timeout_secs):
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

    def _greeting(self) -> Iterable[tuple[str, ...]]:
        wanted = list(self._channels)
        return [("SUBSCRIBE", *wanted[start : start + _AT_ONCE]) for start in range(0, len(wanted), _AT_ONCE)]

    def _take(self, replies: list[Any]) -> None:
        for reply in replies:
            self._take_one(reply)

    def _take_one(self, reply: Any) -> None:
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
