"""Quota slots: the bounded number of inflight requests of one owner.

The slots of an owner are one set in the shard of the owner's name, for the requests of every shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from lifecycle.store.transitions import Store

_BATCH_LIMIT = 150  # slots that one call examines, which bounds how long Redis is busy with it
_RETRY_FOR_SECS = 0.3


class QuotaSlot(NamedTuple):
    """A slot that one admission holds until `admit_by`, and its request, once admitted, until it has ended."""

    rid: str
    nonce: str
    admit_by: float

    @property
    def member(self) -> str:
        """Return the member of the owner's set that stands for this slot."""
        return f"{self.rid}|{self.nonce}"


class QuotaSlots:
    """The quota slots of all owners. Every method may raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def reserve(self, owner: str, rid: str, nonce: str, limit: int) -> QuotaSlot | float:
        """Reserve one of the owner's `limit` slots, or return the time by Redis's clock when all are taken.

        The admission must be done within one lease (`admit_by`). It is one atomic script. A repetition returns the same
        slot. A slot that is not needed any more is found by `find_released`.
        """
        window_secs = self._store.settings.lease_secs
        prefix = self._store.keys.prefix_of(owner)
        reply = await self._store.run(
            "reserve", prefix, owner, f"{rid}|{nonce}", limit, window_secs, retry_for_secs=_RETRY_FOR_SECS
        )
        return QuotaSlot(rid, nonce, float(reply[1])) if reply[0] == b"reserved" else float(reply[1])

    async def held(self, owner: str, after: float, until: float) -> list[QuotaSlot]:
        """Return the reserved slots of an owner whose `admit_by` is after the first and not after the second time.

        Those of ended requests are included.
        """
        bounds = (f"({after:.6f}", f"{until:.6f}", "WITHSCORES")
        flat = await self._store.command("ZRANGEBYSCORE", self._key(owner), *bounds)
        return [_parse(member.decode(), float(at)) for member, at in zip(flat[::2], flat[1::2], strict=True)]

    async def release_ended(self, owner: str, shard: int) -> None:
        """Release the slots of the owner's requests that have ended in this shard, as far as their ends noted them.

        Up to 150 slots are released by one call. It may be repeated; a note is removed behind its slot.
        """
        noted = f"{self._store.keys.prefixes[shard]}ended_slots:{owner}"
        members = await self._store.command("SRANDMEMBER", noted, _BATCH_LIMIT)
        if members:
            await self._store.command("ZREM", self._key(owner), *members)
            await self._store.command("SREM", noted, *members)

    async def find_released(self, shard: int, slots: Sequence[QuotaSlot]) -> list[QuotaSlot]:
        """Return those of `slots`, whose requests must be in this shard, that are no longer needed.

        A slot is no longer needed when its request has ended, or was not admitted and can no longer be. This is final.
        """
        prefix, found = self._store.keys.prefixes[shard], list[QuotaSlot]()
        for begin in range(0, len(slots), _BATCH_LIMIT):
            batch = slots[begin : begin + _BATCH_LIMIT]
            positions = await self._store.run("find_released", prefix, orjson.dumps([tuple(slot) for slot in batch]))
            found += [batch[int(position)] for position in positions]
        return found

    async def release(self, owner: str, slots: Sequence[QuotaSlot]) -> None:
        """Release slots. They must be from `find_released`, or their admissions must have been refused.

        A repetition releases nothing more.
        """
        if slots:
            await self._store.command("ZREM", self._key(owner), *(slot.member for slot in slots))

    def _key(self, owner: str) -> str:
        return f"{self._store.keys.prefix_of(owner)}quota_slots:{owner}"


def _parse(member: str, admit_by: float) -> QuotaSlot:
    rid, _, nonce = member.partition("|")
    return QuotaSlot(rid, nonce, admit_by)
