"""Which replicas live: leases, heartbeats, and the cleanup after replicas whose lease has expired."""

from __future__ import annotations

import logging
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from lifecycle.encoding import encode_json
from lifecycle.errors import ConfigurationConflict, Fenced
from lifecycle.store import common_settings
from lifecycle.store.arguments import encode_detail
from lifecycle.store.common_settings import CHANGEABLE
from lifecycle.store.instructions import Instruction
from lifecycle.store.results import (
    ExpiredReplica,
    PendingCancellation,
    Reaped,
    Reconciliation,
    Roster,
    RosterEntry,
    Swept,
    UnservedModel,
    queued_and_running,
)
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Labels, Role

log = logging.getLogger(__name__)

SCHEMA_VERSION = "11"
_CANCELLATIONS_LIMIT = 500  # pending cancellations that one reconciliation returns; the next one returns the rest
_IDS_PAGE = 500  # ids of a replica's requests that are read at once
# How many items one script handles in one call, which bounds how long Redis is busy with it: 2 ms at most. A request
# that ends, or is queued again, takes about 75 microseconds, a replica that expires about 15.
ENDS_LIMIT = 10
_FORGET_LIMIT = 150  # expired records that leave the listings
EXPIRE_LIMIT = 40
MODELS_PAGE = 100  # models that one sweep examines
LOST_PAGE = 500  # frontends without a lease whose counts are read at once
MEMBERS_PAGE = 500  # replicas whose requests, or leases, are read at once
LISTED_PAGE = 200  # replicas whose announcements are read at once
FIGURES = ("counted", "probe_in_secs")
"""Name what a replica announces that changes all the time, for display: no other reads the list because of it."""


class Membership(ScriptRunner):
    """The part of the Store that knows the replicas.

    Each method is one atomic script. What a replica holds in a shard depends on its lease there, in the same slot:
    `reconcile_shard` renews it, `expire` ends it, and `reap` cleans up. The control slot has the list of replicas,
    which `heartbeat` renews: it shows them, and tells frontends which workers there are. Any replica may run any step
    at any time, also several replicas at once, and a step that is repeated finds nothing left to do.
    """

    _secret = b""
    _secret_read_at = float("-inf")  # by the monotonic clock

    async def heartbeat(
        self,
        replica: str,
        role: Role,
        about: dict[str, Any],
        models: Sequence[str],
        *,
        followed: Instruction | None = None,
        retry_for_secs: float = 0.0,
    ) -> Instruction | None:
        """Show a replica in the cluster's list for `lease_secs`, and return the latest instruction to it, if any.

        `about` is what `GET /v1/replicas` shows, `models` are the models that a worker serves. `followed`
        is the last instruction that the replica has followed, which Redis may have lost. It may be repeated.
        After a failover of Redis it may be lost; the next heartbeat repairs that. What the replica holds does not
        depend on it: see `reconcile_shard`.

        A common setting that was changed for the running cluster is in `settings` afterwards.

        Raises ConfigurationConflict when living replicas run with other common settings, and StoreUnavailable.
        """
        s, known = self.settings, self.common
        common = common_settings.as_texts(s) | {"version": SCHEMA_VERSION}
        reply = await self.run(
            "heartbeat",
            self.keys.control,
            replica,
            role.value,
            s.lease_secs,
            orjson.dumps({name: value for name, value in about.items() if name not in FIGURES}),
            orjson.dumps({name: value for name, value in about.items() if name in FIGURES}),
            orjson.dumps(list(models)),
            orjson.dumps(common),
            known.since,
            known.revision,
            str(followed or ""),
            retry_for_secs=retry_for_secs,
        )
        if as_text(reply[0]) == "conflict":
            name, theirs = as_text(reply[1]), as_text(reply[2])
            raise ConfigurationConflict(_conflict(name, common[name], theirs, s.namespace))
        known.since, known.revision = as_text(reply[2]), int(reply[3])
        if reply[4]:
            self._apply(orjson.loads(reply[4]))
        self.roster_cache.announced = as_text(reply[5]), as_text(reply[6])
        return Instruction.parse(as_text(reply[7]))

    async def leave(self, replica: str, role: Role) -> None:
        """Remove a replica from the cluster's list, as `fate_of` says. May be repeated. Raises StoreUnavailable."""
        await self.run("leave", self.keys.control, replica, role.value)

    def _apply(self, config: dict[str, str]) -> None:
        """Run with common settings that were changed for the whole cluster."""
        changed = {name: value for name, value in common_settings.from_texts(config).items() if name in CHANGEABLE}
        self.settings = self.settings.model_copy(update=changed)
        log.info("common settings are now %s", ", ".join(f"{name}={value}" for name, value in changed.items()))

    async def read_secret(self, max_age_secs: float = 0.0) -> bytes:
        """Return the secret that all frontends share, as it was at most `max_age_secs` ago.

        The first proposed one is kept; there is another one after Redis has lost it. Raises StoreUnavailable.
        """
        now = time.monotonic()
        if not self._secret or now - self._secret_read_at >= max_age_secs:
            self._secret = await self.run("secret", self.keys.control, secrets.token_hex(32))
            self._secret_read_at = now
        return self._secret

    async def configuration(self) -> dict[str, Any]:
        """Return the common settings that the cluster runs with; empty before any replica has joined."""
        flat = await self.command("HGETALL", self.keys.control + "config")
        texts = {as_text(name): as_text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        return common_settings.from_texts(texts)

    async def configure(self, name: str, value: Any) -> str | None:
        """Change one of the CHANGEABLE settings for the whole running cluster, and return its value before.

        Every replica has it within a heartbeat. Returns None when no replica has joined yet. Raises StoreUnavailable.
        """
        reply = await self.run("configure", self.keys.control, name, common_settings.as_text(value))
        return as_text(reply[1]) if as_text(reply[0]) == "ok" else None

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
        serve. Nobody can serve a model in `outages`, or one without a
        living worker for a lease. Limits are judged by the clock of the shard's server, in the same script that ends
        the request. May be repeated. Raises StoreUnavailable.
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

    async def _lease_pages(self, script: str, prefix: str, role: Role, *args: str) -> AsyncIterator[list[Any]]:
        """Yield what a script returns of each page of the leases of one role. Raises StoreUnavailable."""
        begin = ""
        while True:
            following, *flat = await self._call(
                script, prefix, role.value, self.settings.lease_secs, begin, MEMBERS_PAGE, *args
            )
            yield flat
            begin = as_text(following)
            if not begin:
                return

    async def is_known_model(self, model: str) -> bool:
        """Return whether a worker has announced the model, lately enough to be remembered. Raises StoreUnavailable."""
        return await self.command("ZSCORE", self.keys.control + "models", model) is not None

    async def listed(self) -> Roster:
        """Return the listed replicas and the known models; only what has changed since the last call is read.

        No entry says when its lease expires, and one whose lease is over is listed until the next heartbeat of any
        replica. Raises StoreUnavailable.
        """
        cache = self.roster_cache
        async with cache.lock:
            more = True
            while more:
                more = cache.update(
                    await self._call(
                        "roster", self.keys.control, self.settings.lease_secs, cache.epoch, cache.version, LISTED_PAGE
                    )
                )
        return cache.roster()

    async def listed_leases(self, role: Role, *, figures: bool = False) -> list[RosterEntry]:
        """Return until when the replicas of one role are listed, without what they have announced but the figures.

        It is read in pages. Raises StoreUnavailable.
        """
        found: dict[str, RosterEntry] = {}
        async for flat in self._lease_pages("listed_leases", self.keys.control, role, "1" if figures else ""):
            for name, ms, text in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
                replica = as_text(name)
                found[replica] = RosterEntry(replica, role, int(ms), text or b"{}")
        return list(found.values())

    async def next_probe_secs(self, workers: Sequence[str]) -> float:
        """Return the time until the first of these unhealthy workers probes its engine, 0 when it is not known.

        Raises StoreUnavailable.
        """
        control = self.keys.control
        asked = [(("HGET", f"{control}replica:{w}", "figures"), ("ZSCORE", control + "workers", w)) for w in workers]
        replies = await self.commands.execute_many(command for commands in asked for command in commands)
        now, lease_secs = await self.now(), self.settings.lease_secs
        probes = [
            float(ends_at) - lease_secs + orjson.loads(figures).get("probe_in_secs", 0.0) - now
            for figures, ends_at in zip(replies[::2], replies[1::2], strict=True)
            if figures and ends_at
        ]
        return max(0.0, min(probes, default=0.0))

    async def roster(self) -> Roster:
        """Return the living replicas with all that they have announced, for display. Raises StoreUnavailable."""
        listed = await self.listed()
        known = {entry.id: entry for entry in listed.replicas}
        leases = [lease for role in Role for lease in await self.listed_leases(role, figures=True)]
        replicas = [
            lease._replace(about=_joined(known[lease.id].about, lease.about)) for lease in leases if lease.id in known
        ]
        return listed._replace(replicas=replicas)


def _joined(first: bytes, second: bytes) -> bytes:
    """Return one JSON object with the members of two."""
    if b"{}" in (first, second):
        return second if first == b"{}" else first
    return first[:-1] + b"," + second[1:]


def fenced(replica: str) -> Fenced:
    """Return the error for a replica whose id has expired."""
    return Fenced(f"The lease of {replica} has expired in this shard; it rejoins there under a new id")


def _conflict(name: str, ours: str, theirs: str, namespace: str) -> str:
    if name == "version":
        return (
            f"This replica uses version {ours} of the data in Redis, but namespace {namespace!r} has data of version "
            f"{theirs}: set LIFECYCLE_NAMESPACE to a new name for this release until the old one is empty, or install "
            "the release that runs there"
        )
    return (
        f"LIFECYCLE_{name.upper()}={ours} differs from {theirs}, which the living replicas of namespace "
        f"{namespace!r} use: set the same value everywhere, or stop all replicas first"
    )
