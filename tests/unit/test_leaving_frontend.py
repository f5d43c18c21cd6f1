"""A frontend that leaves reads many of its requests at once: it has only a few seconds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from tests.admitting import admit
from tests.conftest import MakeSettings
from tests.waiting import wait_until

REQUESTS = 50
READ_SECS = 0.1


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(lease_secs=60.0, heartbeat_secs=0.1, queue_without_workers=True)


@pytest.mark.leaves_inflight
async def test_the_records_are_not_read_one_by_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    read, at_once, most = Store.read, 0, 0

    async def slow(self: Store, rid: str, **options: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.sleep(READ_SECS)
            return await read(self, rid, **options)
        finally:
            at_once -= 1

    async with Tracker.open(settings, Metrics(), "") as tracker:
        for number in range(REQUESTS):
            await admit(tracker.store, f"r{number}", frontend=tracker.id, on_disconnect="continue")
        await wait_until(lambda: len(tracker.owned) == REQUESTS, what="requests that were taken over")
        monkeypatch.setattr(Store, "read", slow)
        async with asyncio.timeout(READ_SECS * REQUESTS / 2):
            await tracker.owned.leave_live_requests()
        assert len(tracker.owned) == 0
        assert most > 1
