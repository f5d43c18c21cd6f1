"""Waiting by heartbeats, and the things that the tests of this folder do to Redis.

await held_within(store, replica, 12, condition)      whether it came true before the replica had so many heartbeats
await heartbeats(store, replica, 3)                   so many heartbeats of that replica from now on
await killed_while_nobody_hears(store, rid)           a cancel whose message is lost on its way

Frontends, workers and readers in the test's own process, and the loss of Redis's last writes, are in `replicas`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.transitions import Store
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import CancelMode, Labels, RequestRecord
from tests.servers import info
from tests.unit.world import MODEL
from tests.waiting import wait_until

LABELS = Labels(MODEL, "chat_completions", "stream")
_WAIT_SECS = 20.0


class Heartbeats:
    """Counts the heartbeats of one replica by its lease in Redis, which each of them renews."""

    def __init__(self, store: Store, replica: str) -> None:
        self._store = store
        self._replica = replica
        self._seen: set[bytes] = set()

    async def count(self) -> int:
        """Return how many heartbeats have been seen since the first call. It must be called more often than they come.

        A replica that is not in Redis has none.
        """
        control = self._store.keys.control
        try:
            leases = [
                await self._store.command("ZSCORE", control + of, self._replica) for of in ("frontends", "workers")
            ]
        except StoreUnavailable:
            leases = []
        self._seen |= {lease for lease in leases if lease is not None}
        return max(0, len(self._seen) - 1)


async def heartbeats(store: Store, replica: str, count: int) -> None:
    """Wait for so many heartbeats of the replica."""
    seen = Heartbeats(store, replica)

    async def enough() -> bool:
        return await seen.count() >= count

    await wait_until(enough, _WAIT_SECS, f"{count} heartbeats of {replica}")


async def held_within(store: Store, replica: str, count: int, condition: Callable[[], Awaitable[bool]]) -> bool:
    """Return True once the condition holds, and False when the replica has had `count` heartbeats before that."""
    seen, held = Heartbeats(store, replica), False

    async def is_over() -> bool:
        nonlocal held
        held = await condition()
        return held or await seen.count() >= count

    await wait_until(is_over, _WAIT_SECS, f"the condition, or {count} heartbeats of {replica}")
    return held


async def record_of(store: Store, rid: str) -> RequestRecord:
    """Return the record of a request that must be there."""
    record = await store.read(rid, retry_for_secs=_WAIT_SECS)
    assert record is not None, f"{rid} is unknown"
    return record


async def ended(store: Store, *rids: str) -> bool:
    """Return whether every one of these requests has ended. One that Redis cannot tell of has not."""
    try:
        records = [await store.read(rid) for rid in rids]
    except StoreUnavailable:
        return False
    return all(record is not None and record.status.terminal for record in records)


async def killed_while_nobody_hears(store: Store, rid: str) -> None:
    """Cancel a request while every subscriber of this Redis is disconnected, so that the message reaches nobody.

    Both commands are in one pipeline: nobody can have subscribed again in between.
    """
    await asyncio.gather(
        store.command("CLIENT", "KILL", "TYPE", "pubsub"), store.cancel(rid, CancelMode.KILL, "a test asked for it")
    )


def counted(trackers: Iterable[Tracker]) -> tuple[int, int]:
    """Return how many requests these frontends have counted as started, and how many as ended."""
    metrics = [tracker.metrics for tracker in trackers]
    return sum(m.started.total for m in metrics), sum(m.requests.total for m in metrics)


def bytes_moved(server: EmbeddedRedis) -> int:
    """Return how many bytes this server has received and sent since it was started."""
    about = info(server, "stats")
    return int(about["total_net_input_bytes"]) + int(about["total_net_output_bytes"])
