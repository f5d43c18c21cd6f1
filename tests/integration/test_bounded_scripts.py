"""No script keeps Redis busy for long: what one call examines or changes is bounded, however much there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import browse, cluster
from lifecycle.replica.reaper import Reaper
from lifecycle.store.listings import ROWS_LIMIT, SCAN_LIMIT
from lifecycle.store.membership import ENDS_LIMIT, LOST_PAGE
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.conftest import MakeSettings, connect
from tests.joining import join
from tests.servers import ask, info
from tests.unit.world import World

pytestmark = pytest.mark.leaves_inflight

MANY = 3 * ENDS_LIMIT
GROUP_OF_ONE = '["another","chat_completions","stream"]'


class Bench(NamedTuple):
    """A world on a server of its own, whose commands are counted."""

    world: World
    server: EmbeddedRedis

    async def calls(self, work: Callable[[], Awaitable[object]]) -> dict[str, int]:
        """Return how often each command was executed by `work`, inside scripts too."""
        ask(self.server, "CONFIG", "RESETSTAT")
        await work()
        stats = info(self.server, "commandstats")
        found = {
            name.removeprefix("cmdstat_"): dict(pair.split("=") for pair in values.split(","))
            for name, values in stats.items()
        }
        return {name: int(values["calls"]) for name, values in found.items()}


@pytest.fixture
async def bench(make_settings: MakeSettings) -> AsyncIterator[Bench]:
    with EmbeddedRedis() as server:
        settings = make_settings(redis_url=server.url)
        store = Store(connect(settings), settings)
        world = World(store)
        await world.open()
        yield Bench(world, server)
        await world.close()
        await store.commands.aclose()


async def _admit(world: World, count: int, owner: str = "", **admission: float) -> None:
    await asyncio.gather(
        *(world.admit(f"{owner or 'r'}-{number}", owner=owner, **admission) for number in range(count))
    )


async def test_one_reap_of_a_worker_handles_few_requests(bench: Bench) -> None:
    world = bench.world
    for number in range(MANY):
        await world.run(f"r{number}")
    expired = await world.expire("w0")
    first = await world.store.reap(0, expired)
    assert (first.done, first.ended + first.moved) == (False, ENDS_LIMIT)
    calls = 1
    while not (await world.store.reap(0, expired)).done:
        calls += 1
    assert calls <= MANY / ENDS_LIMIT
    assert await world.store.command("HLEN", world.prefix + "running:w0") == 0


async def test_one_reap_of_a_frontend_handles_few_requests(bench: Bench) -> None:
    world = bench.world
    await _admit(world, MANY)
    expired = await world.expire("f0")
    first = await world.store.reap(0, expired)
    assert (first.done, first.ended + first.moved) == (False, ENDS_LIMIT)


async def test_one_sweep_ends_few_requests(bench: Bench) -> None:
    world = bench.world
    await _admit(world, MANY, deadline_secs=0.001)
    assert await world.store.sweep(0) == (ENDS_LIMIT, True, 0)
    await Reaper(world.store).sweep(0)
    assert await world.store.command("ZCARD", world.prefix + "active") == 0


async def test_one_listing_call_reads_a_bounded_number_of_records(bench: Bench) -> None:
    world = bench.world
    await _admit(world, 2 * SCAN_LIMIT)
    another = cluster.Filter(model="another")
    page = await world.store.list_page(0, another, active=True, upper="+inf", before="", limit=1000)
    assert (page.records, page.exhausted) == ([], False)
    calls = await bench.calls(lambda: cluster.list_requests(world.store, cluster.Filter(model="another"), 100))
    assert calls["evalsha"] == 3, "two full pages and an empty one"
    assert "hgetall" not in calls, "whole records are read of those only that match"
    records, has_more = await cluster.list_requests(world.store, cluster.Filter(), 2 * SCAN_LIMIT)
    assert (len(records), has_more) == (2 * SCAN_LIMIT, False)
    calls = await bench.calls(lambda: cluster.list_requests(world.store, cluster.Filter(), ROWS_LIMIT + 1))
    assert calls["evalsha"] == 2


async def test_one_call_for_a_table_reads_a_bounded_number_of_records(bench: Bench) -> None:
    world = bench.world
    await _admit(world, 2 * ROWS_LIMIT)
    page = await world.store.browse(0, "active", "oldest", 0, 1000, 1000, "", [])
    assert len(page.rows) == ROWS_LIMIT
    listing = await browse.browse(world.store, browse.Query("active", "oldest", "", (), 2 * ROWS_LIMIT))
    assert (len(listing.rows), listing.more) == (2 * ROWS_LIMIT, False)


async def test_a_listing_by_owner_reads_the_records_of_others_never(bench: Bench) -> None:
    world = bench.world
    await _admit(world, 500, owner="others")
    await _admit(world, 3, owner="acme")
    for status, found in (("", 3), ("inflight", 3), ("failed", 0)):
        records: list[str] = []

        async def ask_for(status: str = status, records: list[str] = records) -> None:
            page, _ = await cluster.list_requests(world.store, cluster.Filter(status=status, owner="acme"), 100)
            records += [record.id for record in page]

        calls = await bench.calls(ask_for)
        assert len(records) == found
        assert calls["hmget"] <= 3


async def test_an_owner_without_requests_has_no_index(bench: Bench) -> None:
    world = bench.world
    await _admit(world, 2, owner="acme")
    key = world.prefix + "owned:acme"
    for rid in ("acme-0", "acme-1"):
        await world.cancel(rid=rid)
    assert await world.store.command("ZCARD", key) == 2, "ended requests are listed until they expire"
    world.shift_clock(world.store.settings.retention_secs + 1)
    await world.heartbeat()
    await world.store.sweep(0)
    assert not await world.store.command("EXISTS", key)
    assert await world.store.command("ZCARD", world.prefix + "expiries") == 0


async def test_ids_are_compared_page_by_page(bench: Bench) -> None:
    store, key = bench.world.store, bench.world.prefix + "running:w0"
    rids = [f"held-{number}" for number in range(3000)]
    for begin in range(0, 3000, 500):
        await store.command("HSET", key, *(word for rid in rids[begin : begin + 500] for word in (rid, " " * 65)))
    calls = await bench.calls(lambda: store.reconcile_shard(0, "w0", Role.WORKER, rids))
    assert calls["hscan"] >= 4
    assert "hkeys" not in calls
    reconciliation = await store.reconcile_shard(0, "w0", Role.WORKER, [*rids[1:], "unknown"])
    assert (reconciliation.not_in_redis, reconciliation.not_held_locally) == (["unknown"], ["held-0"])


async def test_one_sweep_examines_a_page_of_models(bench: Bench) -> None:
    world = bench.world
    models = [f"model-{number}" for number in range(250)]
    for begin in range(0, 250, 50):
        await join(world.store, "w9", Role.WORKER, {}, models[begin : begin + 50])
    calls = await bench.calls(lambda: Reaper(world.store).sweep(0))
    assert calls["evalsha"] == 3 + 3, "expire, roster, the look at children, and a sweep for each hundred models"


async def test_one_count_examines_a_page_of_the_frontends_that_are_lost(bench: Bench) -> None:
    world = bench.world
    await world.admit()
    admitted = await world.store.count_inflight(0)
    lost = [f"lost-{number}" for number in range(2 * LOST_PAGE + 1)]
    for name in lost:
        await world.store.command("ZADD", world.prefix + "frontends", 1, name)
        await world.store.command("HSET", f"{world.prefix}counts:{name}", GROUP_OF_ONE, 1)
    await world.store.command("HINCRBY", world.prefix + "group_counts", GROUP_OF_ONE, len(lost))
    found: list[Any] = []
    calls = await bench.calls(lambda: _collect(found, world.store.count_inflight(0)))
    assert found == [admitted]
    assert (calls["evalsha"], calls["hgetall"]) == (3, len(lost) + 1)


async def test_a_take_reads_no_further_body_once_it_has_as_much_as_it_returns(bench: Bench) -> None:
    """Lua needs a millisecond or more for each string of a megabyte."""
    for number in range(3):
        await bench.world.admit(f"r{number}", body=b"b" * 1_500_000)
    calls = await bench.calls(lambda: bench.world.take_all(slots=3))
    assert calls["get"] == 1


async def _collect(found: list[Any], asked: Awaitable[Any]) -> None:
    found.append(await asked)
