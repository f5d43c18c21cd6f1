"""What is known of a Redis Cluster, and what is kept for its nodes."""

from __future__ import annotations

from lifecycle.address import parse
from lifecycle.store.redis import make_client
from lifecycle.store.topology import PerNode, Topology, slot_of
from tests.servers import ClusterSetup
from tests.waiting import wait_until


async def test_a_cluster_is_known_by_one_of_its_addresses_and_keeps_nothing_for_who_has_left() -> None:
    closed: list[str] = []

    async def close(url: str) -> None:
        closed.append(url)

    with ClusterSetup() as setup:
        first_only = setup.url.partition(",")[0]
        topology = Topology(parse(first_only), lambda url: make_client(url, socket_timeout_secs=2.0))
        primaries = await topology.primaries()
        assert len(primaries) == 3
        assert {await topology.node_of(slot) for slot in range(0, 16384, 512)} == set(primaries)

        kept = PerNode(topology, str, close)
        left = ("127.0.0.1", 1)
        for node in (primaries[0], left, primaries[1]):
            await kept.get(node)
        assert closed == [topology.url(left)]
        await kept.aclose()
        assert len(closed) == 3
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
