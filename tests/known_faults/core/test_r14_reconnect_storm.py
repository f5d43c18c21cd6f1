"""Redis is down: every new connection is closed at once. Many callers of one process wait for it to come back.

Each of them asks again by its own clock, and if each question were an attempt to connect, a Redis that comes back would
be met by a storm. Expected: a process tries to connect a few times a second, however many of its callers wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from lifecycle.aio import tasks
from lifecycle.errors import StoreUnavailable
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from tests.known_faults.core.replicas import quick_settings
from tests.waiting import wait_until

_CALLERS = 300
_RETRY_FOR_SECS = 12.0
_ATTEMPTS_PER_SEC = 20
_SECS = 2.0


class _RefusingServer:
    """A listening socket that closes each connection at once, and counts them."""

    def __init__(self) -> None:
        self.url = ""
        self.attempts = 0

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[_RefusingServer]:
        refusing = cls()

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            refusing.attempts += 1
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        refusing.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        async with server:
            yield refusing


async def _ask_for_ever(store: Store, rid: str) -> None:
    while True:
        with suppress(StoreUnavailable):
            await store.read(rid, retry_for_secs=_RETRY_FOR_SECS)
        tasks.check_cancelled()


async def test_a_process_whose_callers_wait_for_redis_connects_a_few_times_a_second() -> None:
    async with _RefusingServer.open() as refusing, open_store(quick_settings(refusing.url)) as store:
        callers = [asyncio.create_task(_ask_for_ever(store, f"r{number}")) for number in range(_CALLERS)]
        try:
            await wait_until(lambda: refusing.attempts, what="a first attempt to connect")
            refusing.attempts, over_at = 0, time.monotonic() + _SECS
            allowed = int(_ATTEMPTS_PER_SEC * _SECS)
            await wait_until(lambda: refusing.attempts > allowed or time.monotonic() > over_at)
            assert refusing.attempts <= allowed
        finally:
            await tasks.end(callers)
