"""Holds each owner to its inflight limit: exactly, over all frontends and shards.

An owner's shares are one set, which no script lets grow past the limit; a request takes one before it is admitted, and
needs it until it has ended. Nothing gives it back then, and so nothing can forget to: whoever finds the set full looks
at the requests in it and takes out what is over. An admission that comes after its share may have been taken out is
refused by the script that admits. So a process may die anywhere, and an owner is refused only when as many of its
requests are inflight, or are just being admitted, as may be.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from lifecycle.errors import StoreUnavailable
from lifecycle.store.quota_slots import QuotaSlot, QuotaSlots
from lifecycle.store.scripts import Store


@dataclass(slots=True)
class _Look:
    """At one owner's shares: those who wait for one together share it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    began_at: float = float("-inf")


class Quota:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._shares = QuotaSlots(store)
        self._looks: defaultdict[str, _Look] = defaultdict(_Look)  # as many as there are owners with a limit

    async def reserve(self, owner: str, rid: str, nonce: str, limit: int) -> QuotaSlot | None:
        """None when the owner has as much inflight as it may. Raises StoreUnavailable."""
        share = await self._shares.reserve(owner, rid, nonce, limit)
        if share is None:
            await self._take_out_what_is_over(owner)
            share = await self._shares.reserve(owner, rid, nonce, limit)
        return share

    async def refused(self, owner: str, share: QuotaSlot) -> None:
        """Its admission was refused, and will not be repeated."""
        with suppress(StoreUnavailable):  # then it is found to be over like any other
            await self._shares.release(owner, [share])

    async def _take_out_what_is_over(self, owner: str) -> None:
        clock = asyncio.get_running_loop().time
        asked_at, look = clock(), self._looks[owner]
        async with look.lock:
            if look.began_at >= asked_at:
                return
            look.began_at = clock()
            by_shard: defaultdict[int, list[QuotaSlot]] = defaultdict(list)
            for share in await self._shares.held(owner):
                by_shard[self._store.keys.shard_of(share.rid)].append(share)
            looks = (self._shares.find_released(shard, shares) for shard, shares in by_shard.items())
            for found in await asyncio.gather(*looks, return_exceptions=True):
                if isinstance(found, list):
                    await self._shares.release(owner, found)
                elif not isinstance(found, StoreUnavailable):  # a shard that is away keeps its shares
                    raise found
