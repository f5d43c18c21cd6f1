"""Quota slots: the bounded number of inflight requests of one owner.

The slots of an owner are one set in the shard of the owner's name, for the requests of every shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from lifecycle.store.transitions import Store

_BATCH_LIMIT = 200  # slots that one call examines, which bounds how long Redis is busy with it
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

    async def reserve(self, owner: str, rid: str, nonce: str, limit: int) -> QuotaSlot | None:
        """Reserve one of the owner's `limit` slots, or return None when all are taken.

        The admission must be done within one lease (`admit_by`). It is one atomic script. A repetition returns the same
        slot. A slot that is not needed any more is found by `find_released`.
        """
        window_secs = self._store.settings.lease_secs
        prefix = self._store.keys.prefix_of(owner)
        reply = await self._store.run(
            "reserve", prefix, owner, f"{rid}|{nonce}", limit, window_secs, retry_for_secs=_RETRY_FOR_SECS
        )
        return QuotaSlot(rid, nonce, float(reply[1])) if reply[0] == b"reserved" else None

    async def held(self, owner: str) -> list[QuotaSlot]:
        """Return the slots of an owner that are reserved, ended requests included."""
        flat = await self._store.command("ZRANGE", self._key(owner), 0, -1, "WITHSCORES")
        return [_parse(member.decode(), float(at)) for member, at in zip(flat[::2], flat[1::2], strict=True)]

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
