"""Hold each owner to its inflight limit: exactly, over all frontends and shards.

An owner's slots are one set in Redis, which no script lets grow past the limit. A request takes a slot before it is
admitted and needs it until it has ended. The end of a request does not release its slot, so that no crash can leave one
taken: a frontend that finds the set full checks the requests in it, and releases the slots of those that have ended. An
admission that arrives after its slot may have been released is refused by the admitting script. So a process may die at
any point, and an owner is refused only when as many of its requests as allowed are inflight or just being admitted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from lifecycle.errors import StoreUnavailable
from lifecycle.store.quota_slots import QuotaSlot, QuotaSlots
from lifecycle.store.transitions import Store


@dataclass(slots=True)
class _Cleanup:
    """Share one cleanup of an owner's slots among the callers that wait for it at the same time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    began_at: float = float("-inf")  # loop time


class Quota:
    """Reserve slots for the admissions of one frontend."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._slots = QuotaSlots(store)
        self._cleanups: defaultdict[str, _Cleanup] = defaultdict(_Cleanup)  # one for each owner with a limit

    async def reserve(self, owner: str, rid: str, nonce: str, limit: int) -> QuotaSlot | None:
        """Take a slot; None when the owner has `limit` requests inflight. Raises StoreUnavailable."""
        slot = await self._slots.reserve(owner, rid, nonce, limit)
        if slot is None:
            await self._release_ended(owner)
            slot = await self._slots.reserve(owner, rid, nonce, limit)
        return slot

    async def release(self, owner: str, slot: QuotaSlot) -> None:
        """Release the slot of an admission that was refused and will not be repeated."""
        with suppress(StoreUnavailable):  # then the slot is released when the set is found full
            await self._slots.release(owner, [slot])

    async def _release_ended(self, owner: str) -> None:
        clock = asyncio.get_running_loop().time
        called_at, cleanup = clock(), self._cleanups[owner]
        async with cleanup.lock:
            if cleanup.began_at >= called_at:
                return
            cleanup.began_at = clock()
            by_shard: defaultdict[int, list[QuotaSlot]] = defaultdict(list)
            for slot in await self._slots.held(owner):
                by_shard[self._store.keys.shard_of(slot.rid)].append(slot)
            searches = (self._slots.find_released(shard, slots) for shard, slots in by_shard.items())
            for found in await asyncio.gather(*searches, return_exceptions=True):
                if isinstance(found, list):
                    await self._slots.release(owner, found)
                elif not isinstance(found, StoreUnavailable):  # the slots of an unavailable shard stay taken
                    raise found
