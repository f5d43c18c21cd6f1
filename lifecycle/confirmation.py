"""Waiting for a request's end: its message wakes, its record decides."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from lifecycle.model import Request
from lifecycle.store.pubsub import Message, Subscriptions
from lifecycle.store.scripts import Store

_POLL_SECS = 0.5  # should the message get lost


async def wait_for_end(store: Store, subscriptions: Subscriptions, rid: str, wait_secs: float) -> Request | None:
    """The record as it is once the request has ended or the time is over. None when it is not known.

    Raises StoreUnavailable.
    """
    ended = asyncio.Event()
    record: Request | None = None

    def on_message(message: Message) -> None:
        if message["type"] == "terminal":
            ended.set()

    subscription = await subscriptions.subscribe(store.keys.channel(rid), on_message, on_gap=ended.set)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_secs):
                while True:
                    record = await store.read(rid, patience_secs=1.0)
                    if record is None or record.status.terminal:
                        break
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_SECS):
                            await ended.wait()
                    ended.clear()
    finally:
        await subscriptions.unsubscribe(subscription)
    return record
