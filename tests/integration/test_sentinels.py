"""Finding the primary although not every Sentinel answers, and what Sentinels take for a failure."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from tests.sentinel_setup import SentinelSetup
from tests.servers import ask
from tests.waiting import wait_until


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


async def test_a_primary_that_cannot_save_its_snapshots_is_replaced() -> None:
    """Redis answers PING with MISCONF then, which a Sentinel does not take for an answer."""
    with SentinelSetup(config={"save": "3600 1"}) as setup:
        failing = setup.primary
        (failing.directory / "dump.rdb").unlink(missing_ok=True)
        (failing.directory / "dump.rdb").mkdir()
        ask(failing, "SET", "key", "value")
        ask(failing, "BGSAVE")
        with pytest.raises(ResponseError, match="MISCONF"):
            await wait_until(lambda: ask(failing, "PING") != "PONG", what="a failed snapshot")
        await setup.agreed()
        assert setup.replica is failing
