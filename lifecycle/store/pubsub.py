"""Subscriptions to channels, over one connection.

Messages published while the connection is down are lost. Every subscriber is notified of such a gap and reads the
durable state again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from lifecycle.aio.watchdog import StallTimeout
from lifecycle.errors import StoreUnavailable
from lifecycle.store.listener import ConnectionFactory, Listener

log = logging.getLogger(__name__)

_CHANNELS_PER_COMMAND = 500

Message = dict[str, Any]


class Subscription:
    """One subscriber of one channel."""

    __slots__ = ("channel", "on_gap", "on_message")

    def __init__(self, channel: str, on_message: Callable[[Message], None], on_gap: Callable[[], None]) -> None:
        self.channel = channel
        self.on_message = on_message
        self.on_gap = on_gap


class _Channel:
    def __init__(self) -> None:
        self.subscribers: list[Subscription] = []
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.confirmed_before = False  # a second confirmation means a reconnect, and so a gap


class Subscriptions(Listener):
    """All subscriptions of one process. `run()` must run in a task for them to be confirmed."""

    def __init__(self, factory: ConnectionFactory) -> None:
        super().__init__("subscriptions", factory)
        self._channels: dict[str, _Channel] = {}

    async def subscribe(
        self, channel: str, on_message: Callable[[Message], None], on_gap: Callable[[], None]
    ) -> Subscription:
        """Subscribe to a channel and return once Redis has confirmed.

        `on_message` is called with each message, a JSON object, and `on_gap` after every reconnect, because messages
        may have been missed. Raises StoreUnavailable when Redis does not confirm in time; nothing stays
        subscribed then.
        """
        subscription = Subscription(channel, on_message, on_gap)
        entry = self._channels.get(channel)
        try:
            async with StallTimeout(self._timeout_secs):
                if entry is None:
                    entry = self._channels[channel] = _Channel()
                    entry.subscribers.append(subscription)
                    self._send("SUBSCRIBE", channel)
                else:
                    entry.subscribers.append(subscription)
                await asyncio.shield(entry.confirmed)
        except TimeoutError:
            self.unsubscribe(subscription)
            raise StoreUnavailable(
                f"Redis did not confirm the subscription to {channel} within {self._timeout_secs:g} seconds"
            ) from None
        except BaseException:
            self.unsubscribe(subscription)  # it may have been confirmed in the same turn of the loop
            raise
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Nothing happens when it has ended already."""
        if self._forget(subscription):
            self._send("UNSUBSCRIBE", subscription.channel)

    def _forget(self, subscription: Subscription) -> bool:
        """Remove a subscription; return whether its channel has no subscriber left."""
        entry = self._channels.get(subscription.channel)
        if entry is None or subscription not in entry.subscribers:
            return False
        entry.subscribers.remove(subscription)
        if entry.subscribers:
            return False
        del self._channels[subscription.channel]
        return True

    def _greeting(self) -> Iterable[tuple[str, ...]]:
        wanted = list(self._channels)
        return [
            ("SUBSCRIBE", *wanted[start : start + _CHANNELS_PER_COMMAND])
            for start in range(0, len(wanted), _CHANNELS_PER_COMMAND)
        ]

    def _take(self, replies: list[Any]) -> None:
        for reply in replies:
            self._take_one(reply)

    def _take_one(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) != 3:
            return
        kind, channel = bytes(reply[0]), reply[1].decode() if isinstance(reply[1], bytes) else ""
        entry = self._channels.get(channel)
        if entry is None:
            if kind in (b"subscribe", b"message"):  # its subscriber was cancelled before the confirmation
                self._send("UNSUBSCRIBE", channel)
            return
        if kind == b"message":
            self._deliver(channel, entry, reply[2])
        elif kind == b"subscribe":
            if not entry.confirmed.done():
                entry.confirmed.set_result(None)
            elif entry.confirmed_before:
                for subscriber in list(entry.subscribers):
                    subscriber.on_gap()
            entry.confirmed_before = True

    @staticmethod
    def _deliver(channel: str, entry: _Channel, published: bytes) -> None:
        try:
            message = orjson.loads(published)
        except ValueError:
            log.error("A message on channel %s was ignored because it is not JSON: %.200r", channel, published)
            return
        for subscriber in list(entry.subscribers):
            try:
                subscriber.on_message(message)
            except Exception:  # a message of any content can be published by anyone
                log.exception("A message on channel %s could not be handled", channel)
