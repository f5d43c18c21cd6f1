"""Waiting for a request's end: its message wakes, its record decides."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from lifecycle.errors import StoreUnavailable
from lifecycle.store.pubsub import Message, Subscription, Subscriptions
from lifecycle.store.scripts import Store
from lifecycle.types import RequestRecord

_POLL_SECS = 0.5  # should the message get lost


async def wait_for_end(store: Store, subscriptions: Subscriptions, rid: str, wait_secs: float) -> RequestRecord | None:
    """The record as it was last seen: once the request has ended, or the time is over. None when it was not seen."""
    ended = asyncio.Event()
    record: RequestRecord | None = None

    def on_message(message: Message) -> None:
        if message["type"] == "terminal":
            ended.set()

    subscription: Subscription | None = None
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_secs):
                with suppress(StoreUnavailable):  # a hint: without it the record is looked at now and then
                    subscription = await subscriptions.subscribe(store.keys.channel(rid), on_message, on_gap=ended.set)
                while True:
                    with suppress(StoreUnavailable):
                        record = await store.read(rid)
                        if record is None or record.status.terminal:
                            break
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_SECS):
                            await ended.wait()
                    ended.clear()
    finally:
        if subscription is not None:
            subscriptions.unsubscribe(subscription)
    return record
