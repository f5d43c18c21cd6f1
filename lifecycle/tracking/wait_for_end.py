"""Wait for a request's end. Its message ends the wait early; its record decides."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from lifecycle.errors import StoreUnavailable
from lifecycle.store.pubsub import Message, Subscription, Subscriptions
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord

_POLL_SECS = 0.5  # the record is read this often, in case the message is lost


async def wait_for_end(store: Store, subscriptions: Subscriptions, rid: str, wait_secs: float) -> RequestRecord | None:
    """Return the record once the request has ended, or as it was last read when `wait_secs` are over.

    Returns None when no record was found: the request is unknown or expired, or Redis was unavailable.
    """
    ended = asyncio.Event()
    record: RequestRecord | None = None

    def on_message(message: Message) -> None:
        if message["type"] == "terminal":
            ended.set()

    subscription: Subscription | None = None
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_secs):
                with suppress(StoreUnavailable):  # without a subscription the record is still polled
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
