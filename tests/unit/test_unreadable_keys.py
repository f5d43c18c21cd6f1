"""A transition that cannot read one of a request's Redis keys, as it has another type, has written nothing before."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from tests.unit.world import MODEL, World


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("family", ["tokens", "readers"])
async def test_a_queued_request_that_cannot_be_ended_stays_queued(world: World, family: str) -> None:
    await world.admit()
    key, kept = f"{world.prefix}{family}:r", f"{world.prefix}kept"
    if await world.store.command("EXISTS", key):
        await world.store.command("RENAME", key, kept)
    await world.store.command("SET", key, "text")
    with pytest.raises(ResponseError):
        await world.store.fail("r", "internal", "why")
    assert await world.store.queue_depth(MODEL, "") == 1
    await world.store.command("DEL", key)
    if await world.store.command("EXISTS", kept):
        await world.store.command("RENAME", kept, key)
    assert (await world.take()).rid == "r"


@pytest.mark.leaves_inflight
async def test_a_running_request_that_cannot_be_queued_again_goes_on(world: World) -> None:
    await world.run()
    key, kept = f"{world.prefix}tokens:r", f"{world.prefix}kept"
    await world.store.command("RENAME", key, kept)
    await world.store.command("SET", key, "text")
    with pytest.raises(ResponseError):
        await world.store.requeue("r", "w0", 1)
    await world.store.command("RENAME", kept, key)
    assert await world.append(1) == "accepted"
    assert (await world.finish(1)).what == "done"
