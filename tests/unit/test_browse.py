"""The dashboard's queries read a few rows from either end, with or without a search, and list expired replicas."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.queries import browse
from lifecycle.queries.browse import Query
from lifecycle.types import Role
from tests.unit.world import World


def query(index: Any = "active", order: Any = "oldest", status: str = "", words: str = "", limit: int = 10) -> Query:
    return Query(index, order, status, tuple(words.split()), limit)


async def ids(world: World, asked: Query) -> tuple[list[str], bool]:
    listing = await browse.browse(world.store, asked)
    return [row.record.id for row in listing.rows], listing.more


@pytest.mark.leaves_inflight
async def test_either_end_of_those_inflight(world: World) -> None:
    for rid in ("a", "b"):
        await world.run(rid)
    assert await ids(world, query()) == (["a", "b"], False)
    assert await ids(world, query(order="newest")) == (["b", "a"], False)
    assert await ids(world, query(limit=1)) == (["a"], True)
    assert await ids(world, query(order="newest", limit=1)) == (["b"], True)


@pytest.mark.leaves_inflight
async def test_a_search_looks_at_id_model_status_and_replicas(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "SCAN_LIMIT", 2)  # so that it takes several
    for rid in ("Alpha", "beta", "gamma"):
        await world.run(rid, worker="w1" if rid == "gamma" else "w0")
    await world.admit("waits", frontend="f1")
    assert await ids(world, query(words="alpha")) == (["Alpha"], False)
    assert await ids(world, query(words="w1")) == (["gamma"], False)
    assert await ids(world, query(words="f1 queued")) == (["waits"], False)
    assert await ids(world, query(words="f0 running", limit=2)) == (["Alpha", "beta"], True)
    assert await ids(world, query(status="queued")) == (["waits"], False)
    assert await ids(world, query(words="a%.")) == ([], False)


async def test_what_ended_comes_by_when_it_did(world: World) -> None:
    for rid in ("a", "b", "c"):
        await world.run(rid)
    await world.finish(rid="b")
    world.shift_clock(1)
    await world.finish(rid="c")
    world.shift_clock(1)
    await world.store.fail("a", "internal", "why")
    assert await ids(world, query("expiries", "newest")) == (["a", "c", "b"], False)
    assert await ids(world, query("expiries", "newest", "completed", limit=1)) == (["c"], True)


@pytest.mark.leaves_inflight
async def test_a_row_shows_progress_and_readers_of_living_frontends(world: World) -> None:
    await world.run()
    await world.append(1)
    await world.append(2)
    await world.store.attach("r", "f1", 2)
    row = (await browse.browse(world.store, query())).rows[0]
    assert (row.record.output_tokens, row.readers) == (2, 3)
    await world.reap("f1")
    assert (await browse.browse(world.store, query())).rows[0].readers == 1


async def test_the_gone_are_known_for_a_while(world: World) -> None:
    now = (await world.store.roster()).now
    await world.expire("w1")
    await world.store.heartbeat("w0", Role.WORKER, {"finished": True}, [])
    await world.store.leave("w0", Role.WORKER)
    gone = await browse.recently_gone(world.store, now - 1)
    assert {name: end.left for name, end in gone.items()} == {"w0": True, "w1": False}
    assert await browse.recently_gone(world.store, now + 60) == {}
