"""Takes of requests, each prepared so that the script goes another way: what is queued, and what the call is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle.store.new_request import ShareLimits
from lifecycle.types import Labels, Role
from tests.unit.world import MODEL, World

Call = Callable[[], Awaitable[Any]]
URL = "https://example.com/"
STORED: dict[str, Any] = {"owner": "acme", "storage": "kept", "webhook_url": URL, "admit_by": 4e9}
EVERYTHING: dict[str, Any] = {"queue_timeout_secs": 60.0, "deadline_secs": 60.0, "grace_secs": 60.0}


async def _take(world: World) -> Call:
    await world.admit(**EVERYTHING, weight=2.0, max_tokens=10, priority=-1)
    await world.admit("r1", owner="other")
    await world.store.reconcile_shard(0, "w0", Role.WORKER, models=[MODEL])
    return lambda: world.store.take(0, "w0", 1, "nonce-01", [MODEL], 3)


def _take_overdue(*rids: str) -> Callable[[World], Awaitable[Call]]:
    async def prepare(world: World) -> Call:
        for rid in rids:
            limited: dict[str, Any] = STORED | {"queue_timeout_secs": 0.001} if rid == "overdue" else {"owner": "acme"}
            await world.admit(rid, **limited)
        world.shift_clock(1.0)
        return lambda: world.store.take(0, "w0", 1, "nonce-01", [MODEL], 3)

    return prepare


async def _take_of_models(world: World) -> Call:
    """One request has a stream, some are counted for further limits, and two models have two levels each."""
    other = Labels("m2", "chat_completions", "stream")
    limits = ShareLimits(100, 100_000, 1_000_000, 100, 100_000, 1_000_000)
    await world.run("moved", owner="acme")
    await world.store.requeue("moved", "w0", 1)
    await world.admit("r1", owner="b", share_limits=limits, deadline_secs=60.0)
    await world.admit("r2", owner="b", priority=2, share_limits=limits)
    await world.admit("r3", owner="c", labels=other, share_limits=limits)
    await world.admit("r4", owner="c", labels=other, priority=2)
    return lambda: world.store.take(0, "w0", 9, "nonce-01", [MODEL, "m2"], 8)


async def _take_for_better(world: World) -> Call:
    await world.admit("r0", priority=3)
    await world.admit("r1", priority=-1)
    return lambda: world.store.take(0, "w0", 9, "nonce-01", [MODEL], 1, gives_up=2)


async def _take_nothing(world: World) -> Call:
    await world.take_all("w0")
    await world.take_all("w1")
    await world.admit()
    return lambda: world.store.take(0, "w0", 2, "nonce-01", [MODEL], 0)


TAKES: dict[str, Callable[[World], Awaitable[Call]]] = {
    "take": _take,
    "take overdue": _take_overdue("overdue"),
    "take before overdue": _take_overdue("r0", "overdue", "r1"),
    "take behind overdue": _take_overdue("overdue", "r0", "r1"),
    "take of models": _take_of_models,
    "take for better": _take_for_better,
    "take nothing": _take_nothing,
}
