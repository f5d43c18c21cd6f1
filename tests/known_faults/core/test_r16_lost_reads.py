"""After Redis has lost a shard, a frontend looks up each of its requests, one after the other, within its heartbeat.

No heartbeat goes out meanwhile: with many requests and a slow link the frontend's lease expires, and everybody takes it
for dead. Expected: the frontend keeps its lease while it finds out what has become of its requests.
"""

from __future__ import annotations

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import FaultProxy
from tests.known_faults.core.replicas import call, frontend, quick_settings, restore_shard
from tests.waiting import wait_until

_REQUESTS = 100
_DELAY_SECS = 0.01  # each way: one look at a time takes 2 s, twice the lease


async def test_a_frontend_keeps_its_lease_while_it_looks_up_what_was_lost() -> None:
    with EmbeddedRedis(port=0) as server:
        async with (
            FaultProxy(server.url) as proxy,
            frontend(quick_settings(proxy.url, queue_without_workers=True)) as tracker,
        ):
            identity = tracker.id
            prefix = tracker.store.keys.prefixes[0]
            flights = [await tracker.admit(call(f"r{number}")) for number in range(_REQUESTS)]
            for flight in flights:
                flight.connection.close()  # a reader would look up its own request
            await wait_until(lambda: not any(flight.reader.feed.readers for flight in flights), what="no readers")
            proxy.delay_secs = _DELAY_SECS

            restore_shard(server, prefix, {})
            await wait_until(lambda: len(tracker.owned) == 0, what="a frontend that holds no lost request")
            proxy.delay_secs = 0.0

            living = {replica.id for replica in (await tracker.refresh_roster()).replicas}
            assert identity in living
