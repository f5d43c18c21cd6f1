"""The bench's links to several servers: everything goes through them, and one can be broken alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.redis_cluster_topology import slot_of
from lifecycle.store.transitions import Store
from tests.chaos.links import PER_PROCESS, Links
from tests.chaos.proxy import FaultProxy
from tests.cluster_setup import ClusterSetup
from tests.sentinel_setup import SentinelSetup
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@asynccontextmanager
async def _through(links: Links) -> AsyncIterator[Store]:
    try:
        async with open_store(Settings(redis_url=links.url, shards=6, redis_timeout_secs=0.3)) as store:
            yield store
    finally:
        await links.close()


async def _reached(store: Store) -> set[str]:
    """Return the prefixes of the shards in which a command is executed."""
    found = set()
    for prefix in store.keys.prefixes:
        try:
            await store.commands.execute("SET", prefix + "probe", "1", "PX", 1000)
        except StoreUnavailable:
            continue
        found.add(prefix)
    return found


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[ClusterSetup]:
    with ClusterSetup(config=PER_PROCESS) as setup:
        yield setup


@pytest.mark.parametrize("broken", [FaultProxy.cut, FaultProxy.blackhole])
async def test_the_link_to_one_node_is_broken_alone(
    redis_cluster: ClusterSetup, broken: Callable[[FaultProxy], None]
) -> None:
    links = await Links.to_many(redis_cluster.url, [node.port for node in redis_cluster.nodes])
    async with _through(links) as store:
        everywhere = set(store.keys.prefixes)
        assert await _reached(store) == everywhere
        for node in redis_cluster.nodes:
            there = {prefix for prefix in everywhere if redis_cluster.node_of(slot_of(prefix)) is node}
            assert there
            broken(links.to(node.port))
            assert await _reached(store) == everywhere - there
            links.restore()

            async def mended() -> bool:
                return await _reached(store) == everywhere

            await wait_until(mended, what="links that are whole again")


async def test_the_primary_is_reached_only_through_its_link() -> None:
    with SentinelSetup() as setup:
        ports, sentinel_ports = [s.port for s in setup.servers], [s.port for s in setup.sentinels]
        links = await Links.to_many(setup.url, ports, sentinel_ports)
        async with _through(links) as store:
            assert await _reached(store)
            links.to(setup.primary.port).cut()
            assert not await _reached(store)
            links.restore()

            async def mended() -> bool:
                return bool(await _reached(store))

            await wait_until(mended, what="a link that is whole again")
