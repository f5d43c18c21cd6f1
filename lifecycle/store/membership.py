"""Know which replicas live in a shard, by their leases there, and clean up after those whose lease has expired."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import orjson

from lifecycle.encoding import encode_json
from lifecycle.errors import Fenced
from lifecycle.store.arguments import encode_detail
from lifecycle.store.results import (
    ExpiredReplica,
    PendingCancellation,
    Reaped,
    Reconciliation,
    Swept,
    UnservedModel,
    queued_and_running,
)
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Labels, Role

_CANCELLATIONS_LIMIT = 500  # pending cancellations that one reconciliation returns; the next one returns the rest
_IDS_PAGE = 500  # ids of a replica's requests that are read at once
# How many items one script handles in one call, which bounds how long Redis is busy with it: 2 ms at most. A request
# that ends, or is queued again, takes about 75 microseconds, a replica that expires about 15.
ENDS_LIMIT = 10
_FORGET_LIMIT = 150  # expired records that leave the listings
EXPIRE_LIMIT = 40
MODELS_PAGE = 100  # models that one sweep examines
LOST_PAGE = 500  # frontends without a lease whose counts are read at once


class Membership(ScriptRunner):
    """The part of the Store that knows the replicas of a shard.

    Each method is one atomic script. What a replica holds in a shard depends on its lease there, in the same slot:
    `reconcile_shard` renews it, `expire` ends it, and `reap` cleans up. Any replica may run any step at any time, also
    several replicas at once, and a step that is repeated finds nothing left to do.
    """

    async def reconcile_shard(
        self,
        shard: int,
        replica: str,
        role: Role,
        rids: Sequence[str] | None = None,
        *,
        models: Sequence[str] = (),
        draining: bool = False,
        sweeps: bool = False,
        elapsed_secs: float | None = None,
        waits: bool = False,
    ) -> Reconciliation:
        """Renew a replica's lease in one shard, or join it, and compare what the replica holds with what it counts.

        Only differences are returned. `rids` names what the replica holds; it is given only after a mismatch, because
        then the cost grows with their number. What Redis counts is read page by page, so a request that starts or ends
        meanwhile may be among the differences: whoever acts on them reads the record first. A cancellation is returned
        again until its worker has confirmed it. `models` are those that a worker serves, `draining` says that it leaves
        in an orderly way, and `sweeps` that the caller has a reaper, and can be told to sweep the shard. May be
        repeated; each call raises the replica's tick.

        `elapsed_secs` is the time since the replica's last call for the shard, by its monotonic clock; None for the
        first. Redis's clock may step, and what it shows beyond this time does not count for the limits of requests.
        `waits` says that a worker believes to be rung when something is queued.

        Raises Fenced when the replica's lease in this shard has expired: the id never becomes valid there again. Raises
        StoreUnavailable.
        """
        prefix, s = self._prefixes[shard], self.settings
        reply = await self._call(
            "reconcile_shard",
            prefix,
            replica,
            role.value,
            s.lease_secs,
            s.sweep_secs if sweeps else "",
            orjson.dumps(list(models)),
            "1" if draining else "",
            _CANCELLATIONS_LIMIT,
            "" if elapsed_secs is None else f"{elapsed_secs:.3f}",
            "1" if waits else "",
        )
        if reply[0] == b"fenced":
            raise fenced(replica)
        cancellations = [PendingCancellation(as_text(r), as_text(m), as_text(why)) for r, m, why in reply[3]]
        not_in_redis, not_held_locally = list[str](), list[str]()
        if rids is not None:
            held = set(rids)
            counted = await self._counted(f"{prefix}{'running' if role == Role.WORKER else 'inflight'}:{replica}")
            not_in_redis = [rid for rid in rids if rid not in counted]
            not_held_locally = [rid for rid in counted if rid not in held]
        return Reconciliation(
            epoch=as_text(reply[1]),
            held=int(reply[2]),
            pending_cancellations=cancellations,
            not_in_redis=not_in_redis,
            not_held_locally=not_held_locally,
            tick=int(reply[4]),
            sweep=bool(reply[5]),
            takes=bool(reply[6]),
        )

    async def _counted(self, key: str) -> set[str]:
        """Return the request ids in a replica's table, read in pages that Redis sends within a millisecond."""
        found: set[str] = set()
        cursor = b"0"
        while True:
            cursor, flat = await self.command("HSCAN", key, cursor, "COUNT", _IDS_PAGE)
            found.update(as_text(rid) for rid in flat[::2])
            if int(cursor) == 0:
                return found

    async def expire(self, shard: int, leaving: str = "") -> list[ExpiredReplica]:
        """Expire replicas whose lease in one shard has ended; return some whose requests there are to be cleaned up.

        `leaving` is a replica that expires now, whatever its lease. A replica that has expired stays expired: its
        writes in this shard are refused for a day, and its id is not used there again. During the grace after an outage
        of Redis no lease ends. Each call expires, and returns, up to 40; those that are returned come again until
        `reap` is done with them. May be repeated. Raises StoreUnavailable.
        """
        reply = await self._call("expire", self._prefixes[shard], self.settings.lease_secs, leaving, EXPIRE_LIMIT)
        return [ExpiredReplica(as_text(replica), as_text(role), bool(draining)) for replica, role, draining in reply]

    async def reap(self, shard: int, expired: ExpiredReplica) -> Reaped:
        """Clean up after an expired replica in one shard, up to 10 requests a call.

        The replica's writes in this shard are refused since it expired, so either a write came before that and is seen
        by the cleanup, or it is refused. Requests of a worker are confirmed as cancelled, queued again or failed as
        `worker_lost`, which uses up an attempt unless it was draining; requests of a frontend go to one that has a
        lease in the shard, or fail as `frontend_lost`. May be repeated, and must be until `done`. Raises
        StoreUnavailable.
        """
        reply = await self._call(
            "reap",
            self._prefixes[shard],
            expired.replica,
            expired.role,
            "" if expired.draining else "1",
            self.settings.retention_secs,
            self.settings.max_attempts,
            ENDS_LIMIT,
        )
        return Reaped(bool(reply[0]), int(reply[1]), int(reply[2]), int(reply[3]))

    async def sweep(self, shard: int, outages: Sequence[UnservedModel] = (), first_model: int = 0) -> Swept:
        """End what is due in one shard.

        It ends requests past a time limit or a disconnect grace, removes expired records from the listings, and, for up
        to 100 of the models that the shard knows, from `first_model` on, fails the queued requests that nobody can
        serve. Nobody can serve a model in `outages`, or one without a living worker for a lease. Limits are judged by
        the clock of the shard's server, in the same script that ends the request. May be repeated. Raises
        StoreUnavailable.
        """
        s = self.settings
        reply = await self._call(
            "sweep",
            self._prefixes[shard],
            encode_json([(model, message, as_text(encode_detail(detail))) for model, message, detail in outages]),
            first_model,
            MODELS_PAGE,
            "1" if s.queue_without_workers else "",
            s.lease_secs,
            s.retention_secs,
            ENDS_LIMIT,
            _FORGET_LIMIT,
        )
        return Swept(int(reply[0]), bool(reply[1]), int(reply[2]))

    async def count_inflight(self, shard: int) -> dict[Labels, tuple[int, int]]:
        """Return how many requests are queued and running in one shard, of the frontends with a lease there.

        The cost does not grow with the number of frontends, but with that of those that have lost their lease and are
        not cleaned up; these are read in pages. Raises StoreUnavailable.
        """
        totals: dict[str, int] = defaultdict(int)
        first, examined = 0, LOST_PAGE
        while examined == LOST_PAGE:
            examined, *flat = await self._call(
                "count_inflight", self._prefixes[shard], self.settings.lease_secs, first, LOST_PAGE
            )
            for labels, number in zip(flat[::2], flat[1::2], strict=True):
                totals[as_text(labels)] += int(number)
            first += LOST_PAGE
        return {
            Labels(*orjson.loads(labels)): queued_and_running(number) for labels, number in totals.items() if number > 0
        }

    async def count_held(self, shard: int, role: Role, model: str = "") -> dict[str, int]:
        """Return how many requests each replica of one role holds in one shard, without those that hold none.

        They are named as the shard knows them. Of frontends, only the requests of `model` count, if one is given. It is
        read in pages. Raises StoreUnavailable.
        """
        held: dict[str, int] = {}
        async for flat in self._lease_pages("members", self._prefixes[shard], role, model):
            held |= {as_text(name): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}
        return held


def fenced(replica: str) -> Fenced:
    """Return the error for a replica whose id has expired."""
    return Fenced(f"The lease of {replica} has expired in this shard; it rejoins there under a new id")
