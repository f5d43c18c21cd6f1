"""Count what an owner has inflight: one set in the shard of the owner's name, for the requests of every shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from lifecycle.store.transitions import Store

_BATCH = 200  # looked at in one call: bounds how long Redis is busy
_PATIENCE_SECS = 0.3


class QuotaSlot(NamedTuple):
    """Held by one admission, which must be done by `admit_by`, and then by its request until that has ended."""

    rid: str
    nonce: str
    admit_by: float

    @property
    def member(self) -> str:
        return f"{self.rid}|{self.nonce}"


class QuotaSlots:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def reserve(self, owner: str, rid: str, nonce: str, limit: int) -> QuotaSlot | None:
        """None when all are taken. A lease is time enough for an admission."""
        window_secs = self._store.settings.lease_secs
        prefix = self._store.keys.prefix_of(owner)
        reply = await self._store.run(
            "reserve", prefix, owner, f"{rid}|{nonce}", limit, window_secs, retry_for_secs=_PATIENCE_SECS
        )
        return QuotaSlot(rid, nonce, float(reply[1])) if reply[0] == b"reserved" else None

    async def held(self, owner: str) -> list[QuotaSlot]:
        flat = await self._store.command("ZRANGE", self._key(owner), 0, -1, "WITHSCORES")
        return [_share(member.decode(), float(at)) for member, at in zip(flat[::2], flat[1::2], strict=True)]

    async def find_released(self, shard: int, shares: Sequence[QuotaSlot]) -> list[QuotaSlot]:
        """Of shares whose requests fall into this shard, those that nobody needs any more."""
        prefix, found = self._store.keys.prefixes[shard], list[QuotaSlot]()
        for begin in range(0, len(shares), _BATCH):
            batch = shares[begin : begin + _BATCH]
            positions = await self._store.run("find_released", prefix, orjson.dumps([tuple(share) for share in batch]))
            found += [batch[int(position)] for position in positions]
        return found

    async def release(self, owner: str, shares: Sequence[QuotaSlot]) -> None:
        """Only what is over, or what was refused: its admission must not come any more."""
        if shares:
            await self._store.command("ZREM", self._key(owner), *(share.member for share in shares))

    def _key(self, owner: str) -> str:
        return f"{self._store.keys.prefix_of(owner)}quota_slots:{owner}"


def _share(member: str, admit_by: float) -> QuotaSlot:
    rid, _, nonce = member.partition("|")
    return QuotaSlot(rid, nonce, admit_by)
