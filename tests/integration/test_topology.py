"""What is known of a Redis Cluster, and what is kept for its nodes."""

from __future__ import annotations

import asyncio

from lifecycle.address import parse
from lifecycle.store.redis import make_client
from lifecycle.store.topology import PerNode, Topology, slot_of
from tests.servers import ClusterSetup, ask
from tests.waiting import wait_until


async def test_a_cluster_is_known_by_one_of_its_addresses_and_keeps_nothing_for_who_has_left() -> None:
    closed: list[str] = []

    async def close(url: str) -> None:
        await asyncio.sleep(0)  # others get their turn meanwhile
        closed.append(url)

    with ClusterSetup() as setup:
        first_only = setup.url.partition(",")[0]
        topology = Topology(parse(first_only), lambda url: make_client(url, socket_timeout_secs=2.0))
        primaries = await topology.primaries()
        assert len(primaries) == 3
        assert {await topology.node_of(slot) for slot in range(0, 16384, 512)} == set(primaries)

        kept = PerNode(topology, str, close)
        left = [("127.0.0.1", 1), ("127.0.0.1", 2)]
        await kept.get(primaries[0])
        await asyncio.gather(*map(kept.get, left))
        await asyncio.gather(*map(kept.get, primaries))
        assert sorted(closed) == [topology.url(node) for node in left]
        await kept.aclose()
        assert len(closed) == 5
        await topology.aclose()


async def test_a_wrong_guess_is_corrected_by_the_node_that_was_asked() -> None:
    with ClusterSetup() as setup:
        topology = Topology(parse(setup.url), lambda url: make_client(url, socket_timeout_secs=2.0))
        slot = slot_of("some key")
        right = await topology.node_of(slot)
        topology.moved(slot, ("", 1), asked=right)

        async def corrected() -> bool:
            return await topology.node_of(slot) == right

        await wait_until(corrected, what="every node being asked again")
        await topology.aclose()


async def test_nodes_that_do_not_name_themselves_are_where_they_were_asked() -> None:
    """As behind a balancer that shows one address."""
    with ClusterSetup() as setup:
        for node in setup.nodes:
            ask(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
        topology = Topology(parse(setup.url), lambda url: make_client(url, socket_timeout_secs=2.0))
        assert {host for host, _ in await topology.primaries()} == {"127.0.0.1"}
        await topology.aclose()
