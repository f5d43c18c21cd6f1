"""Test that the id made from an idempotency key is everybody's within a deployment, and nobody's to compute."""

from __future__ import annotations

import hashlib

from lifecycle.tracking.idempotency import Idempotency
from tests.unit.world import World

KEY = Idempotency.of("order-7", "chat_completions", b"{}", "acme")


async def test_each_frontend_makes_the_same_id(world: World) -> None:
    first = await KEY.name(world.store, "chatcmpl-", None)
    await world.store.command("DEL", f"{world.prefix}named:{KEY.key}")
    assert await KEY.name(world.store, "chatcmpl-", None) == first
    assert first.startswith("chatcmpl-")


async def test_it_needs_the_secret_of_the_deployment(world: World) -> None:
    first = await KEY.name(world.store, "", None)
    known = hashlib.sha256(b"acme\0chat_completions\0order-7").hexdigest()
    assert first not in known, "who knows the name of an owner and its key could compute it"
    await world.store.command("DEL", f"{world.prefix}named:{KEY.key}")
    await world.store.command("DEL", f"{world.store.keys.control}secret")
    world.store.settings = world.store.settings.model_copy(
        update={"heartbeat_secs": 0.0}
    )  # after which it is read again
    assert await KEY.name(world.store, "", None) != first
