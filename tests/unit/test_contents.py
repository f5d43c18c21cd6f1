"""The end of a request keeps or removes its body and events; deleting and an owner's limit remove them earlier."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.settings import Settings
from lifecycle.types import Status, Storage
from tests.unit.world import World

KEPT = [Storage.KEPT, Storage.BACKGROUND]
BODY = b'{"input":"hello"}'


async def exists(world: World, name: str) -> bool:
    return bool(await world.store.command("EXISTS", world.prefix + name))


async def ttl_secs(world: World, name: str) -> float:
    return float(await world.store.command("PTTL", world.prefix + name)) / 1000


async def end(world: World, rid: str, *, storage: str = Storage.KEPT, **admission: Any) -> None:
    """Admit, run and finish a request with one token."""
    await world.run(rid, storage=storage, **admission)
    await world.append(1, rid=rid)
    await world.finish(1, rid=rid)


def allow(world: World, stored_bytes: int) -> None:
    """Change the limit for what is admitted from now on."""
    settings = world.store.settings.model_dump() | {"stored_bytes": stored_bytes}
    world.store.settings = Settings.model_validate(settings)


async def stored(world: World, owner: str = "") -> list[str]:
    members = await world.store.command("ZRANGE", f"{world.prefix}stored:{owner}", 0, -1)
    return [member.decode().partition("|")[2] for member in members]


async def stored_bytes(world: World, owner: str = "") -> int:
    members = await world.store.command("ZRANGE", f"{world.prefix}stored:{owner}", 0, -1)
    total = int(await world.store.command("GET", f"{world.prefix}stored_bytes:{owner}") or 0)
    assert total == sum(int(member.partition(b"|")[0]) for member in members)
    return total


async def test_without_storage_the_body_goes_at_the_end_and_the_events_stay(world: World) -> None:
    await end(world, "r", storage="", body=BODY)
    assert not await exists(world, "body:r")
    assert await world.tokens() == "1.1 "
    assert await stored(world) == []


@pytest.mark.parametrize("storage", KEPT)
async def test_kept_content_stays_for_the_retention(world: World, storage: str) -> None:
    await end(world, "r", storage=storage, body=BODY)
    content = await world.store.read_content("r")
    assert content is not None
    assert (content.record.storage, content.body) == (storage, BODY)
    assert await world.tokens() == "1.1 "
    for name in ("body:r", "tokens:r", "stored:", "stored_bytes:"):
        assert 0 < await ttl_secs(world, name) <= world.store.settings.retention_secs
    assert await stored_bytes(world) >= len(BODY)


@pytest.mark.parametrize("how", ["cancel", "fail", "worker dies", "frontend dies"])
async def test_content_is_kept_however_a_request_ends(world: World, how: str) -> None:
    await world.run("r", storage=Storage.KEPT, body=BODY)
    await world.append(1)
    if how == "cancel":
        await world.cancel()
        await world.finish(1)
    elif how == "fail":
        await world.store.fail("r", "response_timeout", "why")
    else:
        await world.reap("w0" if how == "worker dies" else "f0")
    assert (await world.record()).status.terminal
    content = await world.store.read_content("r")
    assert content is not None
    assert content.body == BODY
    assert await stored(world) == ["r"]


async def test_the_events_of_a_transient_request_stay_for_the_readers_of_the_moment(world: World) -> None:
    await world.run("r", storage=Storage.TRANSIENT, body=BODY)
    content = await world.store.read_content("r")
    assert content is not None
    assert content.body == BODY
    await world.append(1)
    await world.finish(1)
    assert not await exists(world, "body:r")
    assert await world.tokens() == "1.1 "
    assert 0 < await ttl_secs(world, "tokens:r") <= 2 * world.store.settings.slow_consumer_secs
    assert await ttl_secs(world, "request:r") > world.store.settings.retention_secs - 10
    assert await stored(world) == []


@pytest.mark.parametrize("storage", [Storage.NONE, Storage.KEPT, Storage.BACKGROUND, Storage.TRANSIENT])
async def test_deleting_removes_the_content_of_an_ended_request_and_leaves_its_record(
    world: World, storage: str
) -> None:
    await end(world, "r", storage=storage, body=BODY)
    for _ in range(2):
        deletion = await world.store.delete_content("r")
        assert deletion is not None
        assert (deletion.what, deletion.record.storage) == ("deleted", Storage.DELETED)
        assert not await exists(world, "body:r")
        assert not await exists(world, "tokens:r")
        assert await stored_bytes(world) == 0
    content = await world.store.read_content("r")
    assert content is not None
    assert (content.record.status, content.body) == (Status.COMPLETED, None)


@pytest.mark.parametrize("storage", [Storage.NONE, Storage.KEPT, Storage.TRANSIENT])
async def test_the_content_of_a_running_request_is_deleted_at_its_end(world: World, storage: str) -> None:
    await world.run("r", storage=storage, body=BODY)
    for _ in range(2):
        deletion = await world.store.delete_content("r")
        assert deletion is not None
        assert (deletion.what, deletion.record.status) == ("pending", Status.RUNNING)
    assert await world.append(1) == "accepted"
    assert await world.cancel() == "pending"
    await world.finish(1)
    assert (await world.record()).status == Status.CANCELLED
    assert not await exists(world, "body:r")
    assert not await exists(world, "tokens:r")
    assert await stored(world) == []


async def test_a_queued_request_whose_content_was_deleted_can_still_run(world: World) -> None:
    await world.admit("r", storage=Storage.BACKGROUND, body=BODY)
    assert (await world.store.delete_content("r")) is not None
    start = (await world.take()).start
    assert start.body == BODY
    await world.finish()
    assert not await exists(world, "body:r")


async def test_nothing_is_known_of_an_unknown_request(world: World) -> None:
    assert await world.store.delete_content("r") is None
    assert await world.store.read_content("r") is None


async def test_the_oldest_content_of_an_owner_makes_room_for_the_newest(world: World) -> None:
    allow(world, 30_000)
    for number in range(4):
        await end(world, f"r{number}", owner="alice", body=b"x" * 10_000)
        assert await stored_bytes(world, "alice") <= 30_000
    await end(world, "other", owner="bob", body=b"x" * 10_000)
    assert await stored(world, "alice") == ["r2", "r3"]
    assert await stored(world, "bob") == ["other"]
    for rid, storage in {"r0": Storage.DELETED, "r1": Storage.DELETED, "r2": Storage.KEPT}.items():
        content = await world.store.read_content(rid)
        assert content is not None
        assert content.record.storage == storage
        assert (content.body is None) == (storage == Storage.DELETED)
        assert await exists(world, f"tokens:{rid}") == (storage == Storage.KEPT)


async def test_the_newest_content_stays_although_it_is_above_the_limit_alone(world: World) -> None:
    allow(world, 1)
    await end(world, "r0", body=BODY)
    await end(world, "r1", body=BODY)
    assert await stored(world) == ["r1"]
    assert await world.tokens("r1") == "1.1 "


async def test_a_limit_of_zero_is_no_limit(world: World) -> None:
    allow(world, 0)
    for number in range(3):
        await end(world, f"r{number}", body=b"x" * 100_000)
    assert await stored(world) == ["r0", "r1", "r2"]


async def test_expired_content_is_no_longer_counted(world: World) -> None:
    await end(world, "r0")
    world.shift_clock(world.store.settings.retention_secs + 1)
    await world.heartbeat()
    await end(world, "r1")
    assert await stored(world) == ["r1"]
    assert await stored_bytes(world) > 0


async def test_one_end_removes_a_bounded_amount_and_sweeps_remove_the_rest(world: World) -> None:
    allow(world, 0)
    for number in range(150):
        await end(world, f"r{number:03}", body=BODY)
    allow(world, 1)
    await end(world, "last", body=BODY)
    assert len(await stored(world)) == 151 - 32
    more = True
    while more:
        more = (await world.store.sweep(0)).more
    assert await stored(world) == ["last"]
    assert await stored_bytes(world) > 0
    assert not await exists(world, "overfull")


async def test_each_shard_allows_its_part_of_the_limit() -> None:
    assert Settings(stored_bytes=1000, shards=16).stored_bytes_of_shard == 63
    assert Settings(stored_bytes=0, shards=16).stored_bytes_of_shard == 0


async def test_the_events_of_a_kept_request_are_counted(world: World) -> None:
    await end(world, "small")
    small = await stored_bytes(world)
    await world.run("large", storage=Storage.KEPT)
    for number in range(1, 500):
        await world.append(number, rid="large")
    await world.finish(499, rid="large")
    assert await stored_bytes(world) - small > 499 * 8


async def test_the_events_that_open_an_answer_are_no_output(world: World) -> None:
    openings = ({"type": "response.created"}, {"type": "response.queued"})

    async def output() -> tuple[int, int, int]:
        record = await world.record()
        return record.output_tokens, record.output_events, record.stream_length

    await world.admit(storage=Storage.BACKGROUND, openings=openings)
    assert await output() == (0, 0, 2)
    await world.take()
    assert await output() == (0, 0, 2)
    await world.store.fail("r", "first_token_timeout", "why")
    assert await output() == (0, 0, 2)
