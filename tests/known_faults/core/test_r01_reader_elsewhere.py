"""A client reads its request at another frontend, B, and its first connection, to A, is gone. Then B goes away too.

Nobody reads any more, and on_disconnect is `cancel`. But the place that B holds among the readers is never judged
again, so the engine runs on for nobody. Expected: the engine is stopped, whether B dies or leaves in good order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.aio import tasks
from lifecycle.execution.context import EngineContext
from lifecycle.replica.reaper import Reaper
from lifecycle.tokens.items import End
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import OnDisconnect
from tests.conftest import MakeSettings, MakeStore
from tests.known_faults.core.kit import held_within, record_of
from tests.known_faults.core.replicas import call, frontend, served, worker
from tests.unit.world import World
from tests.waiting import wait_until

_HEARTBEATS = 12  # three leases
_PAUSE_SECS = 0.02  # between two tokens


@pytest.mark.leaves_inflight
async def test_the_request_is_cancelled_when_the_frontend_of_its_last_reader_dies(
    make_store: MakeStore, make_settings: MakeSettings
) -> None:
    store = make_store(make_settings(lease_secs=0.8, heartbeat_secs=0.2))
    world, reaper = World(store), Reaper(store)
    await world.open()
    try:
        await world.run(on_disconnect="cancel")
        assert await world.append(1) == "accepted"
        await store.attach("r", "f1", 1)
        assert (await store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)).what == "continues"

        async def others_live() -> None:
            while True:
                await world.heartbeat("f1")
                await reaper.sweep(0)
                await asyncio.sleep(store.settings.heartbeat_secs)

        living = asyncio.create_task(others_live())
        try:

            async def is_expired() -> bool:
                return bool(await store.command("EXISTS", store.keys.prefixes[0] + "fenced:f1"))

            async def judged() -> bool:
                record = await record_of(store, "r")
                return record.status.terminal or record.cancel_mode == "kill"

            await wait_until(is_expired, what="the expiry of f1")
            assert await held_within(store, "w0", _HEARTBEATS, judged), await record_of(store, "r")
        finally:
            await tasks.end((living,))
    finally:
        await world.close()


async def _endless(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    while True:
        yield "t"
        await asyncio.sleep(_PAUSE_SECS)


async def _read_to_the_end(tracker: Tracker, reader: TokenReader, got: asyncio.Event) -> None:
    """Read as the response to a client does, which says that it is over once it has sent the end."""
    while not isinstance(await reader.next(), End):
        got.set()
    await tracker.close_reader(reader, ConnectionStatus.CLOSED_GRACEFULLY)


async def test_the_request_is_cancelled_when_the_frontend_of_its_last_reader_leaves(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(lease_secs=0.8, heartbeat_secs=0.2, drain_timeout_secs=0.0, concurrency=4)
    async with frontend(settings) as first, worker(settings, _endless):
        await served(first)
        async with frontend(settings) as second:
            flight = await first.admit(call("r", on_disconnect=OnDisconnect.CANCEL))
            opened = await second.open_reader("r")
            assert opened is not None
            got = asyncio.Event()
            client = asyncio.create_task(_read_to_the_end(second, opened[1], got))
            try:
                await asyncio.wait_for(got.wait(), 10.0)
                flight.connection.close()
                flight.stream.close()
                await wait_until(lambda: first.metrics.disconnects.total == 1, what="the loss of the first client")
                assert not (await record_of(first.store, "r")).status.terminal
            except BaseException:
                await tasks.end((client,))
                raise
        await client

        async def judged() -> bool:
            record = await record_of(first.store, "r")
            return record.status.terminal or record.cancel_mode == "kill"

        assert await held_within(first.store, first.id, _HEARTBEATS, judged), await record_of(first.store, "r")
