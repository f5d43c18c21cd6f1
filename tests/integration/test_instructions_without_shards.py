"""Replicas are instructed while shards are away: only the list of replicas is needed for it."""

from __future__ import annotations

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import instructions
from lifecycle.store.transitions import Store
from lifecycle.types import ReplicaAction
from tests.conftest import MakeSettings, connect
from tests.refusing_redis import RefusingRedis
from tests.unit.world import World


async def test_a_worker_is_told_to_drain_although_a_shard_is_away(make_settings: MakeSettings) -> None:
    with EmbeddedRedis(port=0) as server:
        async with RefusingRedis(server.port) as relay:
            settings = make_settings(redis_url=relay.url, redis_timeout_secs=1.0)
            world = World(Store(connect(settings), settings))
            await world.open()
            await world.run()
            assert (await instructions.instruct(world.store, "w0", ReplicaAction.PAUSE, "by")).inflight == 1
            relay.refuse("BUSY try again", "members")  # what counts the requests of a replica in a shard
            assert (await instructions.instruct(world.store, "w0", ReplicaAction.DRAIN, "by")).inflight == 0
            relay.accept()
            await world.close()
            await world.store.commands.aclose()
