"""Many requests are admitted and ended at the same time: their calls are merged, and each is what it is by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from lifecycle.store import script_loader
from lifecycle.store.merged_calls import MERGED
from lifecycle.store.results import Admission, Append, Ended, Outcome, Run
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord
from tests.conftest import MakeSettings, MakeStore
from tests.pushes import Pushes
from tests.unit.world import MODEL, World

RIDS = [f"r{number:02}" for number in range(16)]


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    world = World(store)
    await world.open()
    for script in MERGED:  # the first call of a script that Redis does not know is sent alone
        await store.command("SCRIPT", "LOAD", script_loader.load(script).source)
    yield world
    await world.close()


async def calls_of(world: World, script: str) -> int:
    """Return how often Redis has run scripts so far."""
    info = (await world.store.command("INFO", "commandstats")).decode()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in info.splitlines() if script in line)


async def finish(world: World, run: Run, text: str = '["1 "]') -> Ended:
    start, last = run.start, Append(run.rid, run.start.attempt, 1, text.encode(), True)
    outcome = Outcome("completed", finish_reason="stop", content_events=1, produced_events=1)
    return await world.store.finish(run.rid, "w0", start.attempt, outcome, 1, remainder=last, nonce=start.nonce)


async def admit_all(world: World) -> list[Admission]:
    return await asyncio.gather(*(world.admit(rid, owner=f"owner{i % 3}") for i, rid in enumerate(RIDS)))


async def test_requests_that_come_together_are_admitted_ended_and_counted(world: World) -> None:
    before = await calls_of(world, "evalsha")
    admitted = await admit_all(world)
    assert {a.outcome for a in admitted} == {"admitted"}
    assert await calls_of(world, "evalsha") - before < len(RIDS) / 4
    times = [a.created_at for a in admitted]
    assert sorted(set(times)) == times
    assert await world.counts("f0") == {"queued": len(RIDS)}

    taken = await world.take_all(slots=len(RIDS))
    assert {run.rid for run in taken.runs} == set(RIDS)
    assert await world.counts("f0") == {"running": len(RIDS)}

    before = await calls_of(world, "evalsha")
    ended = await asyncio.gather(*(finish(world, run) for run in taken.runs))
    assert {e.what for e in ended} == {"done"}
    assert await calls_of(world, "evalsha") - before < len(RIDS) / 4
    for run, end in zip(taken.runs, ended, strict=True):
        assert end.record is not None
        assert (end.record.id, end.record.status) == (run.rid, "completed")
    assert await world.counts("f0") == {}


async def test_each_reader_gets_its_own_tokens_and_end(world: World) -> None:
    await admit_all(world)
    taken = await world.take_all(slots=len(RIDS))
    pushes = await Pushes.open(world.store, "f0")
    await asyncio.gather(*(finish(world, run, f'["text of {run.rid}"]') for run in taken.runs))
    items = await pushes.take()
    await pushes.close()
    assert [rid for rid, _, _ in items[::2]] == [rid for rid, _, _ in items[1::2]]
    assert {rid: event for rid, _, event in items[::2]} == {rid: [f"text of {rid}"] for rid in RIDS}
    assert {rid: event["record"]["id"] for rid, _, event in items[1::2]} == {rid: rid for rid in RIDS}


@pytest.mark.leaves_inflight
async def test_an_id_that_comes_twice_at_once_is_admitted_once(world: World) -> None:
    outcomes = [a.outcome for a in await asyncio.gather(*(world.admit("r", nonce=nonce) for nonce in "abab"))]
    assert outcomes == ["admitted", "exists", "admitted", "exists"]
    assert await world.counts("f0") == {"queued": 1}


async def test_an_end_that_is_reported_twice_at_once_is_taken_once(world: World) -> None:
    run = await world.run()
    first, second = await asyncio.gather(finish(world, run), finish(world, run))
    assert (first.what, second.what) == ("done", "already")
    assert await world.counts("f0") == {}


@pytest.mark.leaves_inflight
async def test_the_limit_of_a_queue_holds_among_requests_that_come_together(
    make_settings: MakeSettings, make_store: MakeStore
) -> None:
    world = World(make_store(make_settings(queue_limit=5)))
    await world.open()
    outcomes = [a.outcome for a in await asyncio.gather(*(world.admit(rid) for rid in RIDS[:8]))]
    await world.close()
    assert outcomes == ["admitted"] * 5 + ["full"] * 3


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("key", ["readers:r01", "tokens:r01"])
async def test_an_error_of_one_request_stops_none_of_those_beside_it(world: World, key: str) -> None:
    runs = [await world.run(rid) for rid in ("r00", "r01", "r02")]
    await world.store.command("DEL", world.prefix + key)
    await world.store.command("SET", world.prefix + key, "of another type")
    first, failed, last = await asyncio.gather(*(finish(world, run) for run in runs), return_exceptions=True)
    assert isinstance(failed, ResponseError)
    assert isinstance(first, Ended)
    assert isinstance(last, Ended)
    assert (first.what, last.what) == ("done", "done")
    await world.store.command("DEL", world.prefix + key)
    assert await world.counts("f0") == {"running": 1}


async def test_the_parts_of_an_answer_are_found_by_its_own_request(world: World) -> None:
    for rid in ("r0", "r1", "r2"):
        await world.run(rid, storage="kept")
    await world.cancel("kill", "r1")
    done = [Outcome("completed", finish_reason="stop", item_ids=(f"item{i}",)) for i in range(3)]
    await asyncio.gather(*(world.store.finish(f"r{i}", "w0", 1, done[i], 0) for i in range(3)))
    assert await world.store.find_items(["item0", "item1", "item2"]) == {"item0": "r0", "item2": "r2"}


async def test_one_call_ends_no_more_than_its_time_allows(world: World) -> None:
    """Expect that the requests which one call leaves are ended by another."""
    for rid in RIDS:
        await world.run(rid, storage="kept", owner="acme")
    before = await calls_of(world, "evalsha")
    ended = await asyncio.gather(*(world.finish(rid=rid) for rid in RIDS))
    assert {e.what for e in ended} == {"done"}
    assert await calls_of(world, "evalsha") - before == 2
    assert await world.counts("f0") == {}


@pytest.mark.leaves_inflight
async def test_what_fails_for_one_owner_is_written_for_the_others(world: World) -> None:
    await world.store.command("SET", world.prefix + "owned:bad", "of another type")
    calls = [world.admit("r0", owner="bad"), world.admit("r1", owner="good")]
    failed, admitted = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(failed, ResponseError)
    assert isinstance(admitted, Admission)
    assert await world.counts("f0") == {"queued": 2}
    assert {run.rid for run in (await world.take_all(slots=2)).runs} == {"r0", "r1"}
    await world.store.command("DEL", world.prefix + "owned:bad")


async def test_what_fails_for_one_frontend_is_written_for_the_others(world: World) -> None:
    await world.run("r0", frontend="f0")
    await world.run("r1", frontend="f1")
    await world.store.command("SET", world.prefix + "counts:f1", "of another type")
    ended, failed = await asyncio.gather(*(world.finish(rid=rid) for rid in ("r0", "r1")), return_exceptions=True)
    assert isinstance(failed, ResponseError)
    assert isinstance(ended, Ended)
    assert await world.counts("f0") == {}
    assert await world.store.command("ZCARD", world.prefix + "active") == 0
    assert await world.store.command("HLEN", world.prefix + "running:w0") == 0
    await world.store.command("DEL", world.prefix + "counts:f1", world.prefix + "group_counts")


async def test_a_cancel_that_fails_half_way_leaves_no_count(world: World) -> None:
    await world.admit("r", storage="kept", owner="acme")
    await world.store.command("SET", world.prefix + "stored:acme", "of another type")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await world.cancel()
    assert (await world.record()).status == "cancelled"
    assert await world.counts("f0") == {}
    assert await world.totals() == {("error", "cancelled"): 1}
    await world.store.command("DEL", *(world.prefix + key for key in ("stored:acme", "body:r", "tokens:r")))


@pytest.mark.leaves_inflight
async def test_an_admission_that_fails_stops_none_of_those_beside_it(world: World) -> None:
    await world.store.command("SET", f"{world.prefix}flow:0|3|bad|{MODEL}", "of another type")
    calls = [world.admit("r00"), world.admit("r01", owner="bad"), world.admit("r02")]
    first, failed, last = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(failed, ResponseError)
    assert isinstance(first, Admission)
    assert isinstance(last, Admission)
    assert (first.outcome, last.outcome) == ("admitted", "admitted")
    await world.store.command("DEL", f"{world.prefix}flow:0|3|bad|{MODEL}")
    assert await world.store.read("r01") is None
    assert await world.counts("f0") == {"queued": 2}


@pytest.mark.leaves_inflight
async def test_the_calls_are_repeated_when_redis_has_forgotten_its_scripts(world: World) -> None:
    await world.store.command("SCRIPT", "FLUSH")
    assert {a.outcome for a in await admit_all(world)} == {"admitted"}
    records = await asyncio.gather(*(world.store.read(rid) for rid in RIDS))
    assert all(isinstance(record, RequestRecord) for record in records)
