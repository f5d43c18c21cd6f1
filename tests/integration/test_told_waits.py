"""What a queued request is told while a part of Redis is away."""

from __future__ import annotations

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import queues
from lifecycle.store.transitions import Store
from tests.conftest import MakeSettings, connect
from tests.refusing_redis import RefusingRedis
from tests.unit.world import World


@pytest.mark.leaves_inflight
async def test_a_record_is_read_while_other_shards_and_the_list_of_replicas_are_away(
    make_settings: MakeSettings,
) -> None:
    with EmbeddedRedis(port=0) as server:
        async with RefusingRedis(server.port) as relay:
            settings = make_settings(redis_url=relay.url, redis_timeout_secs=1.0)
            store = Store(connect(settings), settings)
            world = World(store)
            await world.open()
            await world.admit("r0")
            record = await world.record("r0")
            relay.refuse("BUSY try again", "roster", "EXISTS")  # what is asked beside the record's own shard
            told = await queues.with_wait(store, record)
            assert (told.queue_position, told.estimated_wait_secs) == (1, None)
            relay.refuse("BUSY try again", "waits")
            with pytest.raises(StoreUnavailable):
                await queues.with_wait(store, record)
            relay.accept()
            await world.close()
            await store.commands.aclose()
