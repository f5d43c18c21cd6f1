"""Watches a cluster while it is being broken, and notes whatever must never be seen.

    async with Invariants(store) as invariants:
        ...
    # raises Violated with all that was seen

It reads Redis over a connection of its own, never through a proxy, and knows nothing of pytest. In every snapshot:

- a request that has ended never changes again, and its token stream never grows;
- the totals are, label by label, the number of distinct requests that ended, and never step back within an epoch;
- each frontend's counts are exactly its requests that have not ended, each worker's set is exactly what it runs;
- a request that waits is in its queue;
- a request that has not ended does not vanish.

Over time: the gauge that the cluster shows is the sum over frontends with a lease, a process that is gone counts for
one lease at most, and what it leaves is dealt with soon after. At the end: nothing is inflight, and every client
stream is as promised.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Self

import orjson

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.ids import replica_of
from lifecycle.queries import cluster
from lifecycle.store.results import Roster
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.chaos.readings import Reading, differences, faults_of
from tests.chaos.snapshot import Record, Shard, read_shard

_SLACK_SECS = 2.0  # for a machine that is busy with something else
_MOST_SHOWN = 20


class Violated(AssertionError):
    """An invariant did not hold; says what was seen."""


class Invariants:
    """`consequences_secs`: how long after its lease a dead replica's requests may wait for a reaper; None: for ever.

    `may_lose`: Redis itself is made to lose data, so requests may vanish and ends may be undone.
    """

    def __init__(
        self,
        store: Store,
        *,
        poll_secs: float = 0.1,
        consequences_secs: float | None = 6.0,
        settle_secs: float = 15.0,
        may_lose: bool = False,
        leaves_inflight: bool = False,
    ) -> None:
        self.violations: list[str] = []
        self.readings: list[Reading] = []
        self.polls = 0
        self.unanswered = 0
        self.inflight = 0
        self.ended: dict[str, Record] = {}  # every request that was seen to have ended
        self.unsettled: set[str] = set()  # requests of the last snapshot that have not ended
        self.orphans: set[str] = set()  # those of them whose frontend or worker holds no lease
        self.living: set[int] = set()  # processes of the replicas that are listed, with a lease in every shard
        self._store = store
        self._poll_secs = poll_secs
        self._consequences_secs = consequences_secs
        self._settle_secs = settle_secs
        self._may_lose = may_lose
        self._leaves_inflight = leaves_inflight
        shards = range(store.settings.shards)
        self._counted: list[Counter[tuple[str, ...]]] = [Counter() for _ in shards]  # ends seen, by label
        self._before: list[Shard | None] = [None for _ in shards]
        self._replicas: set[str] = set()
        self._gone_since: dict[str, float] = {}  # replica whose process is gone, and which still has a lease
        self._orphaned_since: dict[str, float] = {}  # request of a replica without a lease
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.look()
        self._task = asyncio.create_task(self._run(), name="invariants")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self.settle()
        finally:
            if self._task is not None:
                await tasks.end((self._task,))
        if kind is None:
            if self._task is not None and not self._task.cancelled():
                self._task.result()  # it could not look, which is a fault of the checker
            await self.check_readings()
            self.raise_if_violated()

    def raise_if_violated(self) -> None:
        if self.violations:
            shown = "\n  ".join(self.violations[:_MOST_SHOWN])
            raise Violated(f"{len(self.violations)} violations:\n  {shown}")

    def data_may_be_lost(self) -> None:
        """Let requests vanish and ends be undone from now on, until `data_was_lost`."""
        self._may_lose = True

    def data_was_lost(self) -> None:
        """Forget what was seen before, and hold what is there now to every invariant again."""
        self._may_lose = False
        self.ended.clear()
        self._counted = [Counter() for _ in self._counted]
        self._before = [None for _ in self._before]

    async def settle(self) -> None:
        """Waits until nothing is inflight, and notes it if that does not come."""
        give_up_at = time.monotonic() + self._settle_secs
        while not self._leaves_inflight:
            seen = await self.look()
            if seen and not self.unsettled and self.inflight == 0:
                return
            if time.monotonic() > give_up_at:
                self.note(f"still inflight: {sorted(self.unsettled)}; the gauge shows {self.inflight}")
                return
            await asyncio.sleep(self._poll_secs)

    async def check_readings(self) -> None:
        """Every client stream that is over; they are forgotten then, unless Redis does not answer."""
        over = [reading for reading in self.readings if reading.over]
        self.readings = [reading for reading in self.readings if not reading.over]
        for reading in over:
            try:
                found = faults_of(reading) or await differences(self._store, reading, may_lose=self._may_lose)
            except StoreError:
                tasks.check_cancelled()
                self.readings.append(reading)  # another time
            else:
                for fault in found:
                    self.note(fault)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_secs)
            await self.look()

    async def look(self) -> bool:
        """One snapshot. False when Redis did not answer."""
        try:
            await self._look()
        except (StoreError, OSError):
            tasks.check_cancelled()
            self.unanswered += 1
            return False
        self.polls += 1
        return True

    async def _look(self) -> None:
        store = self._store
        roster = await store.roster()
        leases = await cluster.leases(store)
        held = await _held_everywhere(store)
        self._replicas.update(leases)
        unsettled: set[str] = set()
        frontends: dict[str, int] = {}
        shards = [await read_shard(store, index, self._replicas) for index in range(store.settings.shards)]
        gauge = await cluster.inflight(store)
        stable = True
        for index, shard in enumerate(shards):
            before, self._before[index] = self._before[index], shard
            self._check_shard(index, shard, before)
            unsettled.update(rid for rid, record in shard.records.items() if not record.ended)
            for frontend, members in shard.members.items():
                replica = replica_of(frontend)
                frontends[replica] = frontends.get(replica, 0) + len(members)
            again = await read_shard(store, index, self._replicas)
            # By id, not by number; and nothing came and went in between, which the totals would show.
            seen, seen_again = ((s.members, s.counts, s.totals) for s in (shard, again))
            stable = stable and seen == seen_again
        self.unsettled, self.inflight = unsettled, gauge.total.inflight
        # What a frontend holds where its lease has expired does not count, and belongs to nobody for a moment.
        held &= await _held_everywhere(store)
        fenced = {replica_of(member) for member in self._replicas if "~" in member}
        shown = {entry.id: count for entry, count in gauge.frontends if entry.id in held - fenced}
        if stable and not self._may_lose and any(frontends.get(f, 0) != count for f, count in shown.items()):
            self.note(f"the gauge shows {shown}, the frontends hold {frontends}")
        self._check_deaths(roster, set(leases), held, shards)

    def _check_shard(self, index: int, shard: Shard, before: Shard | None) -> None:
        counted = self._counted[index]
        if before is None:  # what was there already
            counted.update(shard.totals)
        elif before.epoch and shard.epoch != before.epoch and not self._may_lose:
            self.note(f"the epoch changed from {before.epoch} to {shard.epoch}")
        for rid, record in shard.records.items():
            known = self.ended.get(rid)
            if known is not None and known != record and not self._may_lose:
                self.note(f"{rid} had ended as {known}, and is now {record}")
            if record.ended and known is None:
                self.ended[rid] = record
                if before is not None:
                    result = "success" if record.status == "completed" else "error"
                    counted[(*record.labels, result, record.error_type)] += 1
        if before is not None and not self._may_lose:
            vanished = {rid for rid, r in before.records.items() if not r.ended} - set(shard.records)
            if vanished:
                self.note(f"not ended, and gone: {sorted(vanished)}")
            totals = {labels: n for labels, n in shard.totals.items() if labels[0] != "reaped"}
            seen = {labels: n for labels, n in counted.items() if n and labels[0] != "reaped"}
            if totals != seen:
                self.note(f"the totals say {totals}, seen to end were {seen}")
            back = [labels for labels, n in before.totals.items() if shard.totals.get(labels, 0) < n]
            if back:
                self.note(f"totals stepped back: {back}")
        self._check_membership(shard)

    def _check_membership(self, shard: Shard) -> None:
        """Everything that is kept about who holds what is one script's doing, so it always agrees."""
        inflight = {rid: r for rid, r in shard.records.items() if not r.ended}
        if shard.active != set(inflight):
            self.note(f"`active` holds {sorted(shard.active ^ set(inflight))} too much or too little")
        for frontend in shard.members:
            held = {rid for rid, r in inflight.items() if r.frontend == frontend}
            counts = Counter((r.status, *r.labels) for rid, r in inflight.items() if rid in held)
            if shard.members[frontend] != held or shard.counts.get(frontend, {}) != counts:
                self.note(
                    f"{frontend} is counted as {shard.counts.get(frontend)} for {sorted(shard.members[frontend])}, "
                    f"and holds {sorted(held)}"
                )
        for worker, rids in shard.running.items():
            runs = {rid for rid, r in inflight.items() if r.status == "running" and r.worker == worker}
            if rids != runs:
                self.note(f"{worker} is said to run {sorted(rids)}, the records say {sorted(runs)}")
        lost = sorted(rid for rid, r in inflight.items() if r.status == "queued" and r.waits != "1")
        if lost:
            self.note(f"queued, and in no queue: {lost}")

    def _check_deaths(self, roster: Roster, living: set[str], held: set[str], shards: list[Shard]) -> None:
        """Within one lease the dead do not count; soon after, their requests have ended or moved."""
        now = time.monotonic()
        self.living = {int(orjson.loads(entry.about).get("pid", 0)) for entry in roster.replicas if entry.id in held}
        self.orphans = {
            rid
            for shard in shards
            for rid, r in shard.records.items()
            if not r.ended and (r.frontend not in living or (r.status == "running" and r.worker not in living))
        }
        if roster.grace:  # nobody is judged: Redis was away
            self._gone_since.clear()
            self._orphaned_since.clear()
            return
        gone = {entry.id for entry in roster.replicas if not _runs(orjson.loads(entry.about).get("pid", 0))}
        limit_secs = self._store.settings.lease_secs + _SLACK_SECS
        _keep_since(self._gone_since, gone, now)
        for replica, since in self._gone_since.items():
            if now - since > limit_secs:
                self.note(f"{replica} has no process for {now - since:.1f} s, and still a lease")
                self._gone_since[replica] = now
        if self._consequences_secs is None or not living:
            return
        _keep_since(self._orphaned_since, self.orphans, now)
        for rid, since in self._orphaned_since.items():
            if now - since > self._consequences_secs:
                self.note(f"{rid} belongs to the dead for {now - since:.1f} s, and nobody has dealt with it")
                self._orphaned_since[rid] = now

    def note(self, violation: str) -> None:
        """Said once, however often it is seen."""
        if violation not in self.violations:
            self.violations.append(violation)


async def _held_everywhere(store: Store) -> set[str]:
    """Return the ids of the replicas that hold a lease in every shard, under whatever id it has there."""
    now = await store.now()
    replies = await store.commands.execute_many(
        ("ZRANGEBYSCORE", f"{prefix}{role}s", now, "+inf") for role in Role for prefix in store.keys.prefixes
    )
    holders = [{replica_of(member.decode()) for member in members} for members in replies]
    shards = store.settings.shards
    return {
        replica
        for first in range(0, len(holders), shards)
        for replica in set.intersection(*holders[first : first + shards])
    }


def _keep_since(since: dict[str, float], now_true: set[str], now: float) -> None:
    for name in set(since) - now_true:
        del since[name]
    for name in now_true:
        since.setdefault(name, now)


def _runs(pid: int) -> bool:
    """A zombie does not: it is dead, and its parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self/stat").exists()
