"""A process knows the topology of a Redis Cluster, and keeps clients for its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle.aio import tasks
from lifecycle.local.redis_binary import BUNDLED, bundled_path, find_server
from lifecycle.redis_url import parse
from lifecycle.store.connect import Connections
from lifecycle.store.redis import make_client
from lifecycle.store.redis_cluster_topology import PerNode, Topology, slot_of
from lifecycle.tokens.inbox import Inbox
from tests.cluster_setup import ClusterNode, ClusterSetup
from tests.conftest import MakeSettings
from tests.servers import ask
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
    """Such nodes are behind a load balancer with a single address."""
    with ClusterSetup() as setup:
        for node in setup.nodes:
            ask(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
        topology = Topology(parse(setup.url), lambda url: make_client(url, socket_timeout_secs=2.0))
        assert {host for host, _ in await topology.primaries()} == {"127.0.0.1"}
        await topology.aclose()


async def test_an_inbox_follows_its_slot(make_settings: MakeSettings) -> None:
    heard: list[tuple[str, str, Any]] = []
    gaps: list[None] = []
    with ClusterSetup(find_server(BUNDLED) if bundled_path() else None) as setup:
        moves: list[Callable[[int, ClusterNode], Awaitable[object]]] = [setup.migrate_slot]
        if setup.migrates_atomically:
            moves.append(setup.migrate_slot_atomically)
        async with Connections.open(make_settings(redis_url=setup.url, shards=3)) as connections:
            channel = connections.store.keys.inbox(1, "f0")
            slot = slot_of(channel)
            inbox = Inbox(
                connections.push_factories[1], channel, lambda *item: heard.append(item), lambda: gaps.append(None)
            )
            running = asyncio.create_task(inbox.run())
            for move in (None, *moves):
                if move is not None:
                    here = setup.primaries.index(setup.node_of(slot))
                    await move(slot, setup.primaries[(here + 1) % 3])
                told = len(heard) + 1

                def subscribed(told: int = told) -> bool:
                    return len(gaps) >= told

                def pushed(told: int = told) -> bool:
                    return len(heard) == told

                await wait_until(subscribed, what="a subscription where the slot is")
                setup.ask_slot(slot, "SPUBLISH", channel, f'[["r","1-{told}",["x"]]]')
                await wait_until(pushed, what="what is pushed there")
            await tasks.end((running,))
    assert heard == [("r", f"1-{number}", ["x"]) for number in range(1, len(heard) + 1)]
