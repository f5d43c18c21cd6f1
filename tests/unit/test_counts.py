"""The inflight counts of a shard: kept with each transition, for each frontend and as a sum over all of them."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.queries import cluster
from lifecycle.store.inflight_counts import owned_by_frontend
from lifecycle.types import Labels
from tests.admitting import CHAT
from tests.unit.world import LEASE_SECS, World

OTHER = Labels("m", "completions", "unary")


async def test_each_status_is_counted_by_labels_over_all_frontends(world: World) -> None:
    await world.run("r0")
    await world.run("r1", frontend="f1")
    await world.run("r2", labels=OTHER)
    await world.admit("r3", labels=OTHER)
    await world.admit("r4", frontend="f1")
    assert await world.store.count_inflight(0) == {CHAT: (1, 2), OTHER: (1, 1)}
    read = [await world.store.read_inflight(0)]
    assert owned_by_frontend(read) == owned_by_frontend(read, "m") == {"f0": 3, "f1": 2}
    assert owned_by_frontend(read, "another") == {}
    await world.finish(rid="r0")
    await world.finish(rid="r2")
    assert await world.store.requeue("r1", "w0", 1) == "requeued"
    assert await world.store.count_inflight(0) == {CHAT: (2, 0), OTHER: (1, 0)}
    for rid in ("r1", "r3", "r4"):
        await world.cancel(rid=rid)
    assert await world.store.count_inflight(0) == {}
    assert await world.counts("f0") == await world.counts("f1") == {}


async def test_a_frontend_counts_until_its_lease_has_ended_although_nobody_sweeps(world: World) -> None:
    await world.run("r0")
    await world.admit("r1", frontend="f1", on_disconnect="continue")
    for _ in range(3):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("f1")
    assert await world.store.count_inflight(0) == {CHAT: (0, 1)}
    assert await world.reap("f1") == (0, 1, 0)
    assert await world.store.count_inflight(0) == {CHAT: (1, 1)}, "it goes on under another one"
    await world.cancel(rid="r1")
    await world.finish(rid="r0")


@pytest.mark.leaves_inflight
async def test_what_each_frontend_holds_is_read_with_two_commands_a_shard_however_many_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.run("r0")
    await world.admit("r1", frontend="f1")
    await world.admit("r2", frontend="f1", labels=OTHER)
    store, sent, execute = world.store, list[str](), world.store.commands.execute
    assert (await cluster.inflight(store)).total.inflight == 3  # and the server has the scripts

    async def noted(*args: Any, **options: Any) -> Any:
        sent.append(args[0])
        return await execute(*args, **options)

    monkeypatch.setattr(store.commands, "execute", noted)
    shown = await cluster.inflight(store)
    assert sorted(sent) == ["EVALSHA", "EVALSHA", "HSCAN", "TIME"], "the list, the sums, the numbers and the time"
    assert {entry.id: number for entry, number in shown.frontends} == {"f0": 1, "f1": 2}
    await world.cancel(rid="r2")
    assert {entry.id: number for entry, number in (await cluster.inflight(store)).frontends} == {"f0": 1, "f1": 1}


@pytest.mark.leaves_inflight
async def test_a_frontend_without_a_lease_holds_nothing_although_its_numbers_are_there(world: World) -> None:
    await world.run("r0")
    await world.admit("r1", frontend="f1")
    await world.expire("f1")
    assert owned_by_frontend([await world.store.read_inflight(0)]) == {"f0": 1}


@pytest.mark.leaves_inflight
async def test_a_number_that_is_on_two_pages_counts_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may return a field twice while it makes a table larger or smaller."""
    await world.run("r0")
    await world.admit("r1", frontend="f1")
    store, command = world.store, world.store.command
    pages = iter([b"7", b"0"])

    async def twice(*args: Any, **options: Any) -> Any:
        reply = await command(*args, **options)
        return [next(pages), reply[1]] if args[0] == "HSCAN" else reply

    monkeypatch.setattr(store, "command", twice)
    read = await store.read_inflight(0)
    assert next(pages, None) is None
    assert owned_by_frontend([read]) == {"f0": 1, "f1": 1}


async def test_the_numbers_of_few_frontends_are_kept_as_a_table(world: World) -> None:
    """A field of more than 64 bytes makes one of what Redis would keep as a list of up to 512 fields."""
    assert max(map(len, await world.store.command("HKEYS", world.prefix + "counts"))) > 64
