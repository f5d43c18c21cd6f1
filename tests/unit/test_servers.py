"""The deployments that other tests stand on: they form, change as they are told, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot
from redis.exceptions import MovedError

from lifecycle.local.redis_binary import ServerBinary, bundled_path, find_server, inspect
from tests.cluster_setup import SLOTS, ClusterSetup
from tests.sentinel_setup import SentinelSetup
from tests.servers import ask, info
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def _binaries() -> list[ServerBinary]:
    bundled = bundled_path()
    found = {found.name: found for found in (find_server(), inspect(Path(bundled)) if bundled else None) if found}
    return list(found.values())


@pytest.fixture(params=_binaries(), ids=lambda binary: binary.name)
def binary(request: pytest.FixtureRequest) -> ServerBinary:
    chosen: ServerBinary = request.param
    return chosen


@pytest.fixture
def sentinels(binary: ServerBinary) -> Iterator[SentinelSetup]:
    with SentinelSetup(binary) as setup:
        yield setup


@pytest.fixture
def cluster(binary: ServerBinary) -> Iterator[ClusterSetup]:
    with ClusterSetup(binary, replicas=1) as setup:
        yield setup


async def test_a_clean_failover_loses_nothing_and_the_old_primary_follows(sentinels: SentinelSetup) -> None:
    old, url = sentinels.primary, sentinels.url
    ask(old, "SET", "kept", "1")
    # Replication is asynchronous: a failover may lose what no replica has yet, a clean one too.
    await wait_until(lambda: ask(sentinels.replica, "GET", "kept") == "1", 10.0, "the replica has the write")
    await sentinels.fail_over()
    assert sentinels.replica is old
    assert sentinels.url == url
    assert ask(sentinels.primary, "GET", "kept") == "1"
    assert info(old, "replication")["role"] == "slave"


async def test_a_frozen_primary_is_replaced_and_a_killed_one_too(sentinels: SentinelSetup) -> None:
    old = sentinels.primary
    old.freeze()
    await sentinels.agreed()
    ask(sentinels.primary, "SET", "written", "meanwhile")
    old.thaw()
    await sentinels.rejoined()
    await wait_until(lambda: ask(old, "GET", "written") == "meanwhile", 10.0, "the old primary has what it missed")
    sentinels.primary.kill()
    await sentinels.agreed()
    assert sentinels.primary is old
    sentinels.replica.start()
    await sentinels.rejoined()


async def test_a_cluster_owns_every_slot_once(cluster: ClusterSetup) -> None:
    owners = [cluster.node_of(SLOTS * part // 3) for part in range(3)]
    assert owners == cluster.primaries
    assert {cluster.node_of(5, node) for node in cluster.nodes} == {owners[0]}
    with pytest.raises(MovedError):
        ask(cluster.primaries[0], "GET", "foo")  # 12182: the third part


async def test_a_slot_moves_with_its_keys(cluster: ClusterSetup) -> None:
    slot = key_slot(b"foo")
    for number in range(20):
        cluster.ask_slot(slot, "SET", f"{{foo}}{number}", number)
    target = cluster.primaries[0]
    assert cluster.node_of(slot) is not target
    assert await cluster.migrate_slot(slot, target) == 20
    assert cluster.node_of(slot) is target
    assert ask(target, "GET", "{foo}7") == "7"
    if cluster.migrates_atomically:
        await cluster.migrate_slot_atomically(slot, cluster.primaries[1])
        assert (cluster.node_of(slot), cluster.keys_in(slot)) == (cluster.primaries[1], 20)


async def test_a_replica_takes_over_from_a_killed_primary_and_from_a_frozen_one(cluster: ClusterSetup) -> None:
    killed, frozen, _ = cluster.primaries
    killed.kill()
    assert await cluster.taken_over(killed) is cluster.replicas[0][0]
    frozen.freeze()
    try:
        assert await cluster.taken_over(frozen) is cluster.replicas[1][0]
    finally:
        frozen.thaw()
