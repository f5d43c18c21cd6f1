"""A Redis Cluster: a primary dies, slots move, and the shards that are elsewhere do not notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lifecycle.local.embedded_redis import find_server
from lifecycle.local.redis_binary import BUNDLED, bundled_path
from lifecycle.settings import Settings
from tests.chaos.bench import Bench
from tests.chaos.cluster_places import SHARDS, Places, a_stream_in_every_shard
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.load import LOST, PACED, REFUSED, WHOLE, Load, paced, straight_bench
from tests.chaos.operators import lifecycle
from tests.chaos.signatures import text_of
from tests.cluster_setup import ClusterNode, ClusterSetup
from tests.conftest import MakeSettings
from tests.processes import kept
from tests.servers import ask, info
from tests.sse import error_of
from tests.waiting import wait_until

_LONG_SECS = 40.0  # the time limit of a command, where a node that hangs must hold up nobody


@pytest.fixture
def redis_cluster(request: pytest.FixtureRequest) -> Iterator[ClusterSetup]:
    """The bundled Valkey, with as many replicas of each primary as the test asks for."""
    with (
        ClusterSetup(find_server(BUNDLED) if bundled_path() else None, replicas=getattr(request, "param", 0)) as setup,
        kept(*setup.nodes),
    ):
        yield setup


@pytest.fixture
def redis_url(redis_cluster: ClusterSetup) -> str:
    return redis_cluster.url


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(shards=SHARDS, lease_secs=3.0, redis_timeout_secs=1.0)


async def _every_shard_serves(bench: Bench, places: Places) -> None:
    async def serves(shard: int) -> bool:
        async with bench.post(bench.frontends[0], paced(2), places.new_rid(shard)) as stream:
            if stream.response.status_code != 200:
                return False
            events = await stream.read()
        return (text_of(events), error_of(events)) == (numbers(2), None)

    for shard in range(SHARDS):
        await wait_until(partial(serves, shard), timeout=20, what=f"shard {shard} serving")


async def _is_right(bench: Bench) -> None:
    async def right() -> bool:
        return await bench.inflight() == 0 and not any(
            [await bench.metric("lifecycle_inflight_requests", frontend) for frontend in bench.frontends]
        )

    await wait_until(right, timeout=20, what="nothing inflight")


@pytest.mark.fault(
    "A primary of a Redis Cluster is killed mid-stream.",
    "Only streams of its shards may end, with an error frame; streams of other shards are not affected; "
    "afterwards every shard serves again.",
)
@pytest.mark.parametrize("redis_cluster", [1], indirect=True, ids=["one replica each"])
@pytest.mark.parametrize("which", ["control", "another"])
async def test_a_primary_is_killed(
    which: str, settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    places = Places(settings, redis_cluster)
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        async with a_stream_in_every_shard(bench, places, 150) as streams:
            victim = places.primary(which)
            hit = places.shards_of(victim)
            assert 0 < len(hit) < SHARDS
            was = {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]}
            healing.begins()
            victim.kill()
            for shard, stream in streams.items():
                events = await stream.read()
                error = error_of(events)
                if shard in hit and error is not None:
                    assert error["error_type"] in LOST
                    continue
                assert (text_of(events), error) == (numbers(150), None), shard
        await redis_cluster.taken_over(victim)
        await _every_shard_serves(bench, places)
        healing.is_over()
        await _is_right(bench)
        assert {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]} == was


@pytest.mark.fault(
    "A primary of a Redis Cluster that has no replica comes back empty.",
    "Only streams of its shards end, with `state_lost`; streams of other shards are not affected; afterwards "
    "every shard serves again.",
)
@pytest.mark.parametrize("which", ["control", "another"])
async def test_a_primary_comes_back_empty(
    which: str, settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    places = Places(settings, redis_cluster)
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        async with a_stream_in_every_shard(bench, places, 150) as streams:
            victim = places.primary(which)
            hit = places.shards_of(victim)
            healing.begins()
            victim.kill()
            victim.start()
            for shard, stream in streams.items():
                events = await stream.read()
                error = error_of(events)
                if shard in hit:
                    assert error is not None
                    assert error["error_type"] == "state_lost"
                else:
                    assert (text_of(events), error) == (numbers(150), None), shard
        await _every_shard_serves(bench, places)
        healing.is_over()
        await _is_right(bench)


@pytest.mark.fault(
    "A primary of a Redis Cluster stops responding under load.",
    "Each client receives its text, an error frame or 503; the replica takes over, and the counts are right.",
)
@pytest.mark.parametrize("redis_cluster", [1], indirect=True, ids=["one replica each"])
async def test_a_primary_freezes_under_load(
    settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    places = Places(settings, redis_cluster)
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        async with Load(bench) as load:
            await load.whole(3)
            victim = redis_cluster.primaries[1]
            healing.begins()
            victim.freeze()
            try:
                await redis_cluster.taken_over(victim)
                await load.whole(12)
                healing.is_over()
            finally:
                victim.thaw()
            await load.whole(12)
        assert set(load.kinds) <= {WHOLE, REFUSED} | LOST
        await _every_shard_serves(bench, places)
        await _is_right(bench)


@pytest.mark.fault(
    "The slots of a shard and of the leases are moved key by key, under load.",
    "Each client receives its complete text or 503, and the counts are right.",
)
async def test_a_slot_moves_key_by_key(
    settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    places = Places(settings, redis_cluster)
    async with straight_bench(settings, tmp_path) as bench:
        was = {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]}
        async with a_stream_in_every_shard(bench, places, 100) as streams, Load(bench, clients=4) as load:
            healing.begins()
            for slot in (places.slot(2), places.control_slot) * 2:
                here = redis_cluster.primaries.index(redis_cluster.node_of(slot))
                target = redis_cluster.primaries[(here + 1) % 3]
                assert await redis_cluster.migrate_slot(slot, target) > 3
                await load.whole(3)
            healing.is_over()
            for shard, stream in streams.items():
                events = await stream.read()
                assert (text_of(events), error_of(events)) == (numbers(100), None), shard
        assert set(load.kinds) <= {WHOLE, REFUSED}
        await _every_shard_serves(bench, places)
        await _is_right(bench)
        assert {replica["id"] for replica in (await bench.get("/v1/replicas"))["data"]} == was


@pytest.mark.fault(
    "The move of a slot stops before it is complete.",
    "Its shard answers 503; the other shards admit and stream.",
)
async def test_a_slot_stays_half_way(
    settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    places, moving = Places(settings, redis_cluster), 2
    slot = places.slot(moving)
    async with straight_bench(settings, tmp_path) as bench:
        await _every_shard_serves(bench, places)
        source = redis_cluster.node_of(slot)
        target = redis_cluster.primaries[(redis_cluster.primaries.index(source) + 1) % 3]
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        queues = [f"{places.keys.prefixes[moving]}{queue}:paced" for queue in ("queue", "retry")]
        ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *queues)
        for shard in range(SHARDS):
            async with bench.post(bench.frontends[0], paced(2), places.new_rid(shard)) as stream:
                assert stream.response.status_code == (503 if shard == moving else 200)
                assert shard == moving or text_of(await stream.read()) == numbers(2)
        healing.begins()
        await redis_cluster.migrate_slot(slot, target)
        await _every_shard_serves(bench, places)
        healing.is_over()
        await _is_right(bench)


@pytest.mark.fault(
    "Every slot in use is moved atomically, under load.",
    "Clients receive their complete text or 503, and the counts are right.",
)
async def test_slots_move_atomically(
    settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    if not redis_cluster.migrates_atomically:
        pytest.skip("the server cannot")
    places = Places(settings, redis_cluster)
    async with straight_bench(settings, tmp_path) as bench:
        async with a_stream_in_every_shard(bench, places, 100) as streams, Load(bench, clients=4) as load:
            healing.begins()
            for slot in (*map(places.slot, range(SHARDS)), places.control_slot):
                here = redis_cluster.primaries.index(redis_cluster.node_of(slot))
                await redis_cluster.migrate_slot_atomically(slot, redis_cluster.primaries[(here + 1) % 3])
                await load.whole(2)
            healing.is_over()
            for shard, stream in streams.items():
                events = await stream.read()
                assert (text_of(events), error_of(events)) == (numbers(100), None), shard
        assert set(load.kinds) <= {WHOLE, REFUSED}
        await _every_shard_serves(bench, places)
        await _is_right(bench)


async def test_the_command_line_sees_every_shard(
    settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path
) -> None:
    places = Places(settings, redis_cluster)
    async with (
        straight_bench(settings, tmp_path, frontends=1) as bench,
        a_stream_in_every_shard(bench, places, 100_000) as streams,
    ):
        ids = {stream.response.headers["x-request-id"] for stream in streams.values()}
        shown = await lifecycle(settings, "ps", "--json")
        assert {record["id"] for record in json.loads(shown.output)["data"]} == ids
        assert json.loads((await lifecycle(settings, "inflight", "--json")).output)["total"] == SHARDS
        assert (await lifecycle(settings, "doctor")).status == 0
        tails = [asyncio.create_task(lifecycle(settings, "tail", rid)) for rid in sorted(ids)[:2]]
        cancelled = await lifecycle(settings, "cancel", *ids, "--wait")
        assert cancelled.status == 0, cancelled
        for tail in tails:
            assert (await tail).status == 1


@pytest.mark.fault(
    "A node answers ASK for seconds, because a slot has moved by half.",
    "No process asks for the map of slots more than three times a second.",
)
async def test_a_slot_that_moves_slowly(
    settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    places, moving = Places(settings, redis_cluster), 2
    slot = places.slot(moving)
    async with straight_bench(settings, tmp_path) as bench:
        await _every_shard_serves(bench, places)
        source = redis_cluster.node_of(slot)
        target = redis_cluster.primaries[(redis_cluster.primaries.index(source) + 1) % 3]
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        before, began_at = _maps_asked_for(redis_cluster), time.monotonic()
        for _ in range(200):  # the records are unknown, so the node says where to ask
            await bench.http.get(f"{bench.frontends[0].url}/v1/requests/{places.new_rid(moving)}")
        asked = _maps_asked_for(redis_cluster) - before
        most = 3 * (1 + time.monotonic() - began_at) * len([*bench.frontends, *bench.workers])
        healing.begins()
        await redis_cluster.migrate_slot(slot, target)
        await _every_shard_serves(bench, places)
        healing.is_over()
        assert asked <= most
        await _is_right(bench)


def _maps_asked_for(cluster: ClusterSetup) -> int:
    """Return how often the nodes have been asked for the map; this asks for none itself."""
    found = [info(node, "commandstats").get("cmdstat_cluster|slots", "calls=0") for node in cluster.nodes]
    return sum(int(values.split(",")[0].removeprefix("calls=")) for values in found)


@pytest.mark.fault(
    "A node of a Redis Cluster hangs, and all workers are killed (`kill -9`).",
    "The streams of the shards that can be reached end with `worker_lost`, as if no node hung.",
)
async def test_workers_die_while_a_node_hangs(
    make_settings: MakeSettings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(shards=SHARDS, lease_secs=3.0, redis_timeout_secs=_LONG_SECS)
    places = Places(settings, redis_cluster)
    hanging = places.primary("another")
    reachable = set(range(SHARDS)) - places.shards_of(hanging)
    async with straight_bench(settings, tmp_path) as bench:
        async with a_stream_in_every_shard(bench, places, 400) as streams:
            hanging.freeze()
            healing.begins()
            try:
                for worker in list(bench.workers):
                    await bench.kill(worker)
                async with asyncio.timeout(_LONG_SECS / 2):  # so nobody has waited for an answer of the node
                    for shard in reachable:
                        error = error_of(await streams[shard].read())
                        assert error is not None
                        assert error["error_type"] == "worker_lost"
                healing.is_over()
            finally:
                hanging.thaw()
            await bench.worker("paced", PACED, redis_url=settings.redis_url)
            await asyncio.gather(*(stream.read() for stream in streams.values()))
        await _every_shard_serves(bench, places)
        await _is_right(bench)


@pytest.mark.fault(
    "The node of the control keys hangs, and another node loses its data.",
    "Each replica reconciles with the shards all the same: the streams of the lost data end with `state_lost`, one of "
    "the third node whose cancel no message told with `cancelled`, and the others there with their complete text.",
)
async def test_data_is_lost_while_the_control_keys_are_away(
    settings: Settings, redis_cluster: ClusterSetup, tmp_path: Path, healing: Healing
) -> None:
    places = Places(settings, redis_cluster)
    control, emptied = places.primary("control"), places.primary("another")
    (third,) = set(redis_cluster.primaries) - {control, emptied}
    async with straight_bench(settings, tmp_path, may_lose=True) as bench:
        async with a_stream_in_every_shard(bench, places, 300) as streams:
            control.freeze()
            try:
                healing.begins()
                ask(emptied, "FLUSHALL")
                for shard in places.shards_of(emptied):
                    error = error_of(await streams[shard].read())
                    assert error is not None
                    assert error["error_type"] == "state_lost"
                cancelled, *whole = places.shards_of(third)
                await _note_cancel(bench, third, streams[cancelled].response.headers["x-request-id"])
                error = error_of(await streams[cancelled].read())
                assert error is not None
                assert error["error_type"] == "cancelled"
                healing.is_over()
                for shard in whole:
                    events = await streams[shard].read()
                    assert (text_of(events), error_of(events)) == (numbers(300), None), shard
            finally:
                control.thaw()
            await asyncio.gather(*(stream.read() for stream in streams.values()))
        await _every_shard_serves(bench, places)
        await _is_right(bench)


async def _note_cancel(bench: Bench, node: ClusterNode, rid: str) -> None:
    """Write a cancel of a running request as the script does, but tell nobody of it."""
    record = bench.key("request:" + rid, rid)
    worker = ask(node, "HGET", record, "worker")
    ask(node, "HSET", record, "cancel_mode", "kill", "cancel_reason", "a test asked for it")
    ask(node, "SADD", bench.key(f"pending_cancellations:{worker}", rid), rid)
