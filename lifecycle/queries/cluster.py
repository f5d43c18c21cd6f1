"""Query the whole cluster from Redis, on any replica or from the command line.

The inflight counts are sums over the frontends that hold a lease. A frontend whose lease has expired does not count,
even before it has been reaped. Every function raises StoreUnavailable.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from lifecycle.errors import StoreUnavailable
from lifecycle.ids import replica_of
from lifecycle.records import Replica
from lifecycle.store.listings import Filter as Filter
from lifecycle.store.results import Roster, RosterEntry
from lifecycle.store.transitions import Store
from lifecycle.types import Labels, RequestRecord, Role

INFLIGHT = "inflight"
_ACTIVE = frozenset({INFLIGHT, "queued", "running"})


class Count(NamedTuple):
    """Count requests by status."""

    queued: int = 0
    running: int = 0

    @property
    def inflight(self) -> int:
        return self.queued + self.running

    def __add__(self, other: object) -> Count:
        assert isinstance(other, Count)
        return Count(self.queued + other.queued, self.running + other.running)


@dataclass(slots=True, frozen=True)
class Inflight:
    """Count the requests inflight, cluster-wide, at `as_of`: Unix seconds by Redis's clock.

    `frontends` has the number that each frontend holds; it is empty in a snapshot.
    """

    groups: dict[Labels, Count]
    frontends: list[tuple[RosterEntry, int]]
    as_of: float

    @property
    def total(self) -> Count:
        return sum(self.groups.values(), Count())

    def to_json(self) -> dict[str, Any]:
        """Return the body of `GET /v1/inflight`."""
        total = self.total
        return {
            "object": "inflight",
            "total": total.inflight,
            "queued": total.queued,
            "running": total.running,
            "groups": [
                {**labels._asdict(), "queued": c.queued, "running": c.running, "inflight": c.inflight}
                for labels, c in sorted(self.groups.items())
            ],
            "frontends": [
                {"id": f.id, "inflight": n, "lease_expires_in_ms": f.lease_expires_in_ms} for f, n in self.frontends
            ],
            "as_of": self.as_of,
        }


@dataclass(slots=True, frozen=True)
class ClusterSnapshot:
    """Hold what the cluster metrics show."""

    inflight: Inflight
    replicas: list[Replica]
    totals: dict[tuple[str, str, str, str, str], int]  # model, endpoint, request_type, status, error_type
    reaped: dict[str, int]  # by role
    oldest_created_at: float | None  # of the requests inflight, in Unix seconds
    epochs: tuple[str, ...]  # of each shard; an epoch changes when Redis has lost the shard's data
    webhooks_waiting: int  # events in the outbox
    queued_bytes: dict[str, int]  # of the bodies that wait, by model


async def inflight(store: Store, model: str = "") -> Inflight:
    """Count the requests inflight of one model, or of all."""
    now, listed, groups, own = await asyncio.gather(
        store.now(),
        store.listed_leases(Role.FRONTEND),
        _groups(store, model),
        _held(store, Role.FRONTEND, model),
    )
    return Inflight(groups, [(entry, own.get(entry.id, 0)) for entry in listed], now)


async def _groups(store: Store, model: str = "") -> dict[Labels, Count]:
    """Count by labels, from one sum in each shard."""
    groups: dict[Labels, Count] = defaultdict(Count)
    for counts in await asyncio.gather(*(store.count_inflight(shard) for shard in range(store.settings.shards))):
        for labels, (queued, running) in counts.items():
            if not model or labels.model == model:
                groups[labels] += Count(queued, running)
    return dict(groups)


async def _held(store: Store, role: Role, model: str = "") -> dict[str, int]:
    """Return how many requests each replica holds in all shards; one that holds none may be missing."""
    held: dict[str, int] = defaultdict(int)
    shards = range(store.settings.shards)
    for counts in await asyncio.gather(*(store.count_held(shard, role, model) for shard in shards)):
        for member, number in counts.items():
            held[replica_of(member)] += number
    return held


async def replicas(store: Store) -> list[Replica]:
    """Return the replicas that hold a lease."""
    return await _replicas(store, await store.roster())


async def replica(store: Store, id: str) -> Replica | None:
    """Return one living replica, None when there is none with this id. What it holds in shards that are away is 0."""
    entry = next((entry for entry in (await store.roster()).replicas if entry.id == id), None)
    if entry is None:
        return None
    asked = (store.count_held(shard, Role(entry.role)) for shard in range(store.settings.shards))
    counts = await asyncio.gather(*asked, return_exceptions=True)
    for count in counts:
        if isinstance(count, BaseException) and not isinstance(count, StoreUnavailable):
            raise count
    held = (number for count in counts if isinstance(count, dict) for m, number in count.items() if replica_of(m) == id)
    return _replica(entry, sum(held))


async def _replicas(store: Store, roster: Roster, details: bool = True) -> list[Replica]:
    held: dict[str, int] = {}
    for own in await asyncio.gather(*(_held(store, role) for role in Role if details)):
        held |= own
    return [_replica(entry, held.get(entry.id, 0)) for entry in roster.replicas]


def _replica(entry: RosterEntry, inflight: int) -> Replica:
    return replace(entry.replica, inflight=inflight) if inflight else entry.replica


async def snapshot(store: Store, *, details: bool = True) -> ClusterSnapshot:
    """Read what the cluster metrics show.

    Without `details`, the replicas have neither their inflight requests nor their figures, and the cost does not grow
    with their number.
    """
    roster = await (store.roster() if details else store.listed())
    groups, living = await asyncio.gather(_groups(store), _replicas(store, roster, details))
    counts = Inflight(groups, [], roster.now)
    prefixes = store.keys.prefixes
    replies = await store.commands.execute_many(
        command
        for p in prefixes
        for command in (
            ("HGETALL", p + "totals"),
            ("ZRANGE", p + "active", 0, 0, "WITHSCORES"),
            ("GET", p + "epoch"),
            ("ZCOUNT", p + "webhooks", "-inf", "+inf"),
        )
    )
    totals: dict[tuple[str, str, str, str, str], int] = defaultdict(int)
    reaped: dict[str, int] = defaultdict(int)
    for flat in replies[0::4]:
        for field, number in zip(flat[::2], flat[1::2], strict=True):
            name = orjson.loads(field)
            if name[0] == "reaped" and len(name) == 2:
                reaped[name[1]] += int(number)
            else:
                totals[tuple(name)] += int(number)
    oldest = [float(reply[1]) for reply in replies[1::4] if reply]
    epochs = tuple((e or b"").decode() for e in replies[2::4])
    waiting = sum(map(int, replies[3::4]))
    return ClusterSnapshot(
        counts,
        living,
        dict(totals),
        dict(reaped),
        min(oldest, default=None),
        epochs,
        waiting,
        await store.queued_bytes(),
    )


async def list_requests(
    store: Store, filter: Filter, limit: int, after: RequestRecord | None = None, older_than_secs: float | None = None
) -> tuple[list[RequestRecord], bool]:
    """Return a page of at most `limit` records, newest first, older than `after`; and whether there are more.

    The filter's `status` may be `inflight` too.
    `older_than_secs` leaves out requests admitted within that time, by Redis's clock.
    """
    bound = (f"{after.created_at:.6f}", after.id) if after else ("+inf", "")
    if older_than_secs is not None:
        created_at = await store.now() - older_than_secs
        if after is None or created_at < after.created_at:
            bound = (f"{created_at:.6f}", "")
    shards = range(store.settings.shards)
    pages = await asyncio.gather(*(_shard_page(store, shard, filter, limit + 1, bound) for shard in shards))
    merged = list(heapq.merge(*pages, key=lambda r: (r.created_at, r.id), reverse=True))
    return merged[:limit], len(merged) > limit


async def _shard_page(
    store: Store, shard: int, filter: Filter, limit: int, bound: tuple[str, str]
) -> Sequence[RequestRecord]:
    found: list[RequestRecord] = []
    active = filter.status in _ACTIVE
    matching = filter._replace(status="") if filter.status == INFLIGHT else filter
    while len(found) < limit:
        page = await store.list_page(
            shard, matching, active=active, upper=bound[0], before=bound[1], limit=limit - len(found)
        )
        found += page.records
        bound = (page.created_at, page.rid)
        if page.exhausted:
            break
    return found


async def leases(store: Store) -> dict[str, float]:
    """Return when each replica's lease ends, by the id under which a shard knows it; of several shards the earliest."""
    ends: dict[str, float] = {}
    replies = await store.commands.execute_many(
        ("ZRANGE", f"{prefix}{role}s", 0, -1, "WITHSCORES") for prefix in store.keys.prefixes for role in Role
    )
    for flat in replies:
        for member, at in zip(flat[::2], flat[1::2], strict=True):
            name = member.decode()
            ends[name] = min(float(at), ends.get(name, float("inf")))
    return ends


async def known_replicas(store: Store) -> set[str]:
    """Return the ids of replicas that a reaper knows in some shard: with a lease, or expired and not cleaned up yet."""
    replies = await store.commands.execute_many(
        command
        for prefix in store.keys.prefixes
        for command in (
            ("ZRANGE", prefix + "frontends", 0, -1),
            ("ZRANGE", prefix + "workers", 0, -1),
            ("HKEYS", prefix + "pending_cleanup"),
        )
    )
    return {name.decode() for names in replies for name in names}
