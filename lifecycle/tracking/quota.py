"""Hold each owner to its inflight limit: exactly, over all frontends and shards.

An owner's slots are one set in Redis, which no script lets grow past the limit. A request takes a slot before it is
admitted and needs it until it has ended. The end of a request notes in its own shard that the slot is not needed any
more, and a frontend that finds the set full removes what is noted, so that no crash can leave a slot taken. Slots whose
admission never came are found by their time: each is examined once when that has passed. An admission that arrives
after its slot may have been released is refused by the admitting script. So a process may die at any point, and an
owner is refused only when as many of its requests as allowed are inflight or just being admitted.

A refused call costs a command for each shard, whatever the limit, and a frontend makes such a cleanup at most every
20 ms for each owner; all slots are examined once in a lease at most, in case Redis has lost a note.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from lifecycle.errors import StoreUnavailable
from lifecycle.store.quota_slots import QuotaSlot, QuotaSlots
from lifecycle.store.transitions import Store

_DISTANCE_SECS = 0.02  # between two cleanups of one owner's slots
_SKEW_SECS = 1.0  # between the clocks of two shards' servers


@dataclass(slots=True)
class _Cleanup:
    """Share one cleanup of an owner's slots among the callers that wait for it at the same time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    began_at: float = float("-inf")  # loop time
    all_examined_at: float = float("-inf")  # loop time
    examined_until: float = float("-inf")  # admit_by, by Redis's clock


class Quota:
    """Reserve slots for the admissions of one frontend."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._slots = QuotaSlots(store)
        self._cleanups: defaultdict[str, _Cleanup] = defaultdict(_Cleanup)  # one for each owner with a limit

    async def reserve(self, owner: str, rid: str, nonce: str, limit: int) -> QuotaSlot | None:
        """Take a slot; None when the owner has `limit` requests inflight. Raises StoreUnavailable."""
        slot = await self._slots.reserve(owner, rid, nonce, limit)
        if not isinstance(slot, QuotaSlot):
            await self._release_ended(owner, slot)
            slot = await self._slots.reserve(owner, rid, nonce, limit)
        return slot if isinstance(slot, QuotaSlot) else None

    async def release(self, owner: str, slot: QuotaSlot) -> None:
        """Release the slot of an admission that was refused and will not be repeated."""
        with suppress(StoreUnavailable):  # then the slot is released when the set is found full
            await self._slots.release(owner, [slot])

    async def _release_ended(self, owner: str, now: float) -> None:
        clock = asyncio.get_running_loop().time
        called_at, cleanup = clock(), self._cleanups[owner]
        async with cleanup.lock:
            if cleanup.began_at >= called_at:
                return
            await asyncio.sleep(cleanup.began_at + _DISTANCE_SECS - clock())
            cleanup.began_at = clock()
            shards = range(self._store.settings.shards)
            noted = (self._slots.release_ended(owner, shard) for shard in shards)
            for outcome in await asyncio.gather(*noted, return_exceptions=True):
                if outcome is not None and not isinstance(outcome, StoreUnavailable):
                    raise outcome
            if clock() > cleanup.all_examined_at + self._store.settings.lease_secs:
                cleanup.all_examined_at, cleanup.examined_until = clock(), float("-inf")
            await self._examine(owner, cleanup.examined_until, now)
            cleanup.examined_until = now - _SKEW_SECS

    async def _examine(self, owner: str, after: float, until: float) -> None:
        """Release slots whose request was not admitted in time, or whose end was not noted."""
        by_shard: defaultdict[int, list[QuotaSlot]] = defaultdict(list)
        for slot in await self._slots.held(owner, after, until):
            by_shard[self._store.keys.shard_of(slot.rid)].append(slot)
        searches = (self._slots.find_released(shard, slots) for shard, slots in by_shard.items())
        for found in await asyncio.gather(*searches, return_exceptions=True):
            if isinstance(found, list):
                await self._slots.release(owner, found)
            elif not isinstance(found, StoreUnavailable):  # the slots of an unavailable shard stay taken
                raise found
