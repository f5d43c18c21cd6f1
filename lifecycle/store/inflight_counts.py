"""How many requests are inflight in a shard: by labels, and for each frontend."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import orjson

from lifecycle.ids import replica_of
from lifecycle.store.results import queued_and_running
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Labels

# How many numbers are read at once, which bounds how long Redis is busy with it: 2 ms at most.
LOST_PAGE = 500  # of frontends without a lease, in a script
OWNED_PAGE = 2000  # of all frontends, by a command


class ShardInflight(NamedTuple):
    """The requests inflight in one shard: by labels, and for each frontend with a lease there."""

    groups: dict[Labels, tuple[int, int]]
    owned: list[bytes]  # frontend and labels, as Redis has them, and both counts in one number, by turns


class InflightCounts(ScriptRunner):
    """The part of the Store that counts inflight requests. Nothing is written, so every call may be repeated."""

    async def count_inflight(self, shard: int) -> dict[Labels, tuple[int, int]]:
        """Return how many requests are queued and running in one shard, of the frontends with a lease there.

        The cost does not grow with the number of frontends, but with that of those that have lost their lease and are
        not cleaned up; these are read in pages. Raises StoreUnavailable.
        """
        groups, _ = await self._groups(shard)
        return groups

    async def read_inflight(self, shard: int) -> ShardInflight:
        """Return what is inflight in one shard, also by frontend, which is read in pages. Raises StoreUnavailable."""
        (groups, lost), owned = await asyncio.gather(self._groups(shard), self._owned(shard))
        if lost:
            owned = _flat((f, number) for f, number in _pairs(owned) if f.partition(b" ")[0] not in lost)
        return ShardInflight(groups, owned)

    async def _groups(self, shard: int) -> tuple[dict[Labels, tuple[int, int]], set[bytes]]:
        """Return the counts by labels, and the frontends without a lease."""
        totals: dict[str, int] = defaultdict(int)
        lost: list[bytes] = []
        more = 1
        while more:
            more, examined, *flat = await self._call(
                "count_inflight", self._prefixes[shard], self.settings.lease_secs, len(lost), LOST_PAGE
            )
            for labels, number in zip(flat[::2], flat[1::2], strict=True):
                totals[as_text(labels)] += int(number)
            lost += examined
        groups = {
            Labels(*orjson.loads(labels)): queued_and_running(number) for labels, number in totals.items() if number > 0
        }
        return groups, set(lost)

    async def _owned(self, shard: int) -> list[bytes]:
        key, cursor, pages = self._prefixes[shard] + "counts", b"0", list[list[bytes]]()
        while not pages or int(cursor):
            cursor, flat = await self.command("HSCAN", key, cursor, "COUNT", OWNED_PAGE)
            pages.append(flat)
        if len(pages) == 1:
            return pages[0]
        return _flat(dict(_pairs(chain.from_iterable(pages))).items())  # a field may be on several pages


def _pairs(flat: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    parts = iter(flat)
    return zip(parts, parts, strict=True)


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return list(chain.from_iterable(pairs))


def owned_by_frontend(shards: Iterable[ShardInflight], model: str = "") -> dict[str, int]:
    """Return how many requests each frontend holds in these shards, of one model or of all."""
    sums: dict[bytes, int] = {}
    known = sums.get
    for shard in shards:  # each step here is taken for each shard, frontend and labels
        flat = shard.owned
        for field, number in zip(flat[::2], orjson.loads(b"[%b]" % b",".join(flat[1::2])), strict=True):
            sums[field] = known(field, 0) + number
    by_name: dict[bytes, int] = defaultdict(int)
    counts: dict[bytes, bool] = {}
    for field, number in sums.items():
        name, _, labels = field.partition(b" ")
        if model and number and labels not in counts:
            counts[labels] = orjson.loads(labels)[0] == model
        if number and (not model or counts[labels]):
            by_name[name] += number
    held: dict[str, int] = defaultdict(int)
    for name, number in by_name.items():
        held[replica_of(name.decode())] += sum(queued_and_running(number))
    return held
