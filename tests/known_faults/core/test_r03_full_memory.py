"""The bodies of queued requests fill Redis up to its `maxmemory`; requests run meanwhile.

Tokens are refused at the same mark as new requests. So what runs stands still, its slots never become free, the queue
never gets shorter and no memory is given back. Expected: what runs goes on, and new requests are admitted in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.tracking.admission import Rejected
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Limits, OnDisconnect
from tests.known_faults.core.kit import LABELS, ended, held_within
from tests.known_faults.core.replicas import call, frontend, quick_settings, served, worker
from tests.waiting import wait_until

_MEMORY = "24mb"
_BODIES_BYTES = (1_000_000, 100_000, 10_000, 1_000)  # so that at last nothing of any size fits
_TOKEN = "x" * 1000
_TOKENS = 1000
_HEARTBEATS = 12


async def _fill(tracker: Tracker) -> None:
    """Queue requests until Redis takes none, not even a small one."""
    number = 0
    for size in _BODIES_BYTES:
        body = b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % (b"x" * size)
        while True:
            number += 1
            try:
                await tracker.admit(AdmissionRequest(f"q{number}", LABELS, body, OnDisconnect.CONTINUE, 0.0, Limits()))
            except (StoreUnavailable, Rejected):
                break


@pytest.mark.slow
async def test_what_runs_goes_on_when_queued_bodies_fill_the_memory() -> None:
    running, full = ("run0", "run1"), asyncio.Event()
    begun: set[str] = set()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        begun.add(context.id)
        await full.wait()
        for number in range(_TOKENS if context.id in running else 1):
            yield _TOKEN
            if number % 10 == 0:
                await asyncio.sleep(0)

    with EmbeddedRedis(port=0, config={"maxmemory": _MEMORY}) as server:
        settings = quick_settings(server.url, concurrency=len(running), drain_timeout_secs=0.0)
        async with frontend(settings) as tracker, worker(settings, engine):
            store = tracker.store
            await served(tracker)
            for rid in running:
                await tracker.admit(call(rid))
            await wait_until(lambda: begun == set(running), what="running requests")
            await _fill(tracker)
            full.set()

            async def have_ended() -> bool:
                return await ended(store, *running)

            assert await held_within(store, tracker.id, _HEARTBEATS, have_ended)

            async def is_admitted() -> bool:
                try:
                    await tracker.admit(call("new"))
                except StoreUnavailable:
                    return False
                return True

            assert await held_within(store, tracker.id, _HEARTBEATS, is_admitted)
