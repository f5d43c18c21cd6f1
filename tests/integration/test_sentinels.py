"""Finding the primary although not every Sentinel answers."""

from __future__ import annotations

from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from tests.sentinel_setup import SentinelSetup


async def test_a_sentinel_that_hangs_leaves_time_for_the_next() -> None:
    with SentinelSetup() as setup:
        first = setup.sentinels[0]
        first.freeze()
        try:
            settings = Settings(redis_url=setup.url, namespace="sentinels", redis_timeout_secs=2.0)
            async with open_store(settings) as store:
                await store.ping()
        finally:
            first.thaw()
