"""Which replicas live: leases, heartbeats, and the cleanup after replicas whose lease has expired."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from lifecycle.encoding import encode_json
from lifecycle.errors import ConfigurationConflict, Fenced
from lifecycle.store import common_settings
from lifecycle.store.arguments import encode_detail
from lifecycle.store.common_settings import CHANGEABLE
from lifecycle.store.results import (
    ExpiredReplica,
    PendingCancellation,
    Reaped,
    Reconciliation,
    Renewal,
    Roster,
    RosterEntry,
    UnservedModel,
)
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Role

log = logging.getLogger(__name__)

SCHEMA_VERSION = "6"
_CANCELLATIONS_LIMIT = 500  # pending cancellations that one reconciliation returns; the next one returns the rest
_IDS_PAGE = 500  # ids of a replica's requests that are read at once
# How many items one script handles in one call, which bounds how long Redis is busy with it: 2 ms at most. A request
# that ends, or is queued again, takes about 75 microseconds, a replica that expires about 15.
ENDS_LIMIT = 10
_FORGET_LIMIT = 150  # expired records that leave the listings
_EXPIRE_LIMIT = 40
MODELS_PAGE = 100  # models that one sweep examines


class Membership(ScriptRunner):
    """The part of the Store that knows the replicas.

    Each method except `finish_cleanup` is one atomic script, in the slot of the control keys or in one shard. Leases
    are in the control slot and requests in the shards, so the two change one after the other: `expire` first, then
    `reap` in each shard, then `finish_cleanup`. Any replica may run any step at any time, also several replicas at
    once, and a step that is repeated finds nothing left to do.
    """

    async def heartbeat(
        self,
        replica: str,
        role: Role,
        about: dict[str, Any],
        models: Sequence[str],
        *,
        sweeps: bool = False,
        retry_for_secs: float = 0.0,
    ) -> Renewal:
        """Join the cluster or renew the lease for `lease_secs`.

        `about` is what `GET /v1/replicas` shows, `models` are the models that a worker serves. Repeating it renews the
        lease again. After a failover of Redis the renewal may be lost; the next heartbeat repairs that. `sweeps` says
        that the caller has a reaper, and can be told to sweep.

        A common setting that was changed for the running cluster is in `settings` afterwards.

        Raises Fenced when this id has expired: it never becomes valid again. Raises ConfigurationConflict when living
        replicas run with other common settings.
        """
        s, known = self.settings, self.common
        common = common_settings.as_texts(s) | {"version": SCHEMA_VERSION}
        reply = await self.run(
            "heartbeat",
            self.keys.control,
            replica,
            role.value,
            s.lease_secs,
            s.sweep_secs if sweeps else "",
            orjson.dumps(about),
            orjson.dumps(list(models)),
            orjson.dumps(common),
            known.since,
            known.revision,
            retry_for_secs=retry_for_secs,
        )
        what = as_text(reply[0])
        if what == "fenced":
            raise fenced(replica)
        if what == "conflict":
            name, theirs = as_text(reply[1]), as_text(reply[2])
            raise ConfigurationConflict(_conflict(name, common[name], theirs, s.namespace))
        known.since, known.revision = as_text(reply[2]), int(reply[3])
        if reply[4]:
            self._apply(orjson.loads(reply[4]))
        return Renewal(float(reply[1]), bool(reply[5]))

    def _apply(self, config: dict[str, str]) -> None:
        """Run with common settings that were changed for the whole cluster."""
        changed = {name: value for name, value in common_settings.from_texts(config).items() if name in CHANGEABLE}
        self.settings = self.settings.model_copy(update=changed)
        log.info("common settings are now %s", ", ".join(f"{name}={value}" for name, value in changed.items()))

    async def read_secret(self) -> bytes:
        """Return the secret that all frontends share; the first proposed one is kept. Raises StoreUnavailable."""
        secret: bytes = await self.run("secret", self.keys.control, secrets.token_hex(32))
        return secret

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
        self, shard: int, replica: str, role: Role, rids: Sequence[str] | None = None
    ) -> Reconciliation:
        """Compare what a replica holds in one shard with what Redis counts, and return the differences only.

        `rids` names what it holds; it is given only after a mismatch, because then the cost grows with their number.
        What Redis counts is read page by page, so a request that starts or ends meanwhile may be among the
        differences: whoever acts on them reads the record first. Nothing is changed but the shard's epoch, which the
        first call after a loss of data sets, and the replica's tick, which each call raises. A cancellation is
        returned again until its worker has confirmed it.

        Raises Fenced when the replica has been reaped in this shard, and StoreUnavailable.
        """
        prefix = self._prefixes[shard]
        reply = await self._call("reconcile_shard", prefix, replica, role.value, _CANCELLATIONS_LIMIT)
        if reply[0] == b"fenced":
            raise fenced(replica)
        cancellations = [PendingCancellation(as_text(r), as_text(m), as_text(why)) for r, m, why in reply[3]]
        not_in_redis, not_held_locally = list[str](), list[str]()
        if rids is not None:
            held = set(rids)
            counted = await self._counted(f"{prefix}{'running' if role == Role.WORKER else 'inflight'}:{replica}")
            not_in_redis = [rid for rid in rids if rid not in counted]
            not_held_locally = [rid for rid in counted if rid not in held]
        epoch, count, tick = as_text(reply[1]), int(reply[2]), int(reply[4])
        return Reconciliation(epoch, count, cancellations, not_in_redis, not_held_locally, tick)

    async def _counted(self, key: str) -> set[str]:
        """Return the request ids in a replica's table, read in pages that Redis sends within a millisecond."""
        found: set[str] = set()
        cursor = b"0"
        while True:
            cursor, flat = await self.command("HSCAN", key, cursor, "COUNT", _IDS_PAGE)
            found.update(as_text(rid) for rid in flat[::2])
            if int(cursor) == 0:
                return found

    async def expire(self, leaving: str = "") -> list[ExpiredReplica]:
        """Expire replicas whose lease has ended, and return all whose requests are still to be cleaned up.

        `leaving` is a replica that expires now, whatever its lease. A replica that has expired stays expired: its
        heartbeats are refused for a day, and its id is not used again. During the grace after an outage of Redis no
        lease ends. May be repeated: it returns the same replicas until `finish_cleanup`. Raises StoreUnavailable.
        """
        reply = await self._call("expire", self.keys.control, self.settings.lease_secs, leaving, _EXPIRE_LIMIT)
        return [ExpiredReplica(as_text(r), as_text(role), orjson.loads(models)) for r, role, models in reply]

    async def reap(self, shard: int, expired: ExpiredReplica, new_owners: Sequence[str]) -> Reaped:
        """Clean up after an expired replica in one shard, up to 10 requests a call.

        The script first sets the mark that refuses the replica's later writes in this shard, so either the replica's
        write comes before the cleanup and is seen by it, or it is refused. Requests of a worker are confirmed as
        cancelled, queued again or failed as `worker_lost`; requests of a frontend get one of `new_owners` or fail as
        `frontend_lost`. May be repeated, and must be until `done`. Raises StoreUnavailable.
        """
        reply = await self._call(
            "reap",
            self._prefixes[shard],
            expired.replica,
            expired.role,
            orjson.dumps(list(new_owners)),
            orjson.dumps(expired.models),
            self.settings.retention_secs,
            self.settings.max_attempts,
            ENDS_LIMIT,
        )
        return Reaped(bool(reply[0]), int(reply[1]), int(reply[2]), int(reply[3]))

    async def finish_cleanup(self, replica: str) -> None:
        """Forget an expired replica once `reap` is done in every shard. Its id stays refused for a day.

        The two commands are not atomic together. Both may be repeated, and after a loss the cleanup is repeated.
        Raises StoreUnavailable.
        """
        control = self.keys.control
        await self.commands.execute_many(
            [("HDEL", control + "pending_cleanup", replica), ("DEL", control + "replica:" + replica)]
        )

    async def sweep(
        self, shard: int, unserved: Sequence[UnservedModel] = (), models: Sequence[str] = ()
    ) -> tuple[int, bool]:
        """End what is due in one shard; return how many requests ended and whether there is more to do.

        It ends requests past a time limit or a disconnect grace, fails the queued requests of the `unserved` models,
        removes expired records from the listings, and queues deliveries to expired workers again, for each of `models`.
        Limits are judged by the clock of the shard's server, in the same script that ends the request. May be repeated.
        Raises StoreUnavailable.
        """
        reply = await self._call(
            "sweep",
            self._prefixes[shard],
            encode_json([(model, message, as_text(encode_detail(detail))) for model, message, detail in unserved]),
            orjson.dumps(list(models)),
            self.settings.retention_secs,
            ENDS_LIMIT,
            _FORGET_LIMIT,
        )
        return int(reply[0]), bool(reply[1])

    async def is_known_model(self, model: str) -> bool:
        """Return whether a worker has announced the model, lately enough to be remembered. Raises StoreUnavailable."""
        return await self.command("ZSCORE", self.keys.control + "models", model) is not None

    async def roster(self) -> Roster:
        """Return the living replicas and the known models, as of one moment. Raises StoreUnavailable."""
        reply = await self._call("roster", self.keys.control, self.settings.lease_secs)
        replicas = [RosterEntry(as_text(i), as_text(role), int(ms), about) for i, role, ms, about in reply[1]]
        models = {as_text(m): float(at) for m, at in reply[2]}
        return Roster(float(reply[0]), replicas, models, bool(reply[3]))


def fenced(replica: str) -> Fenced:
    """Return the error for a replica whose id has expired."""
    return Fenced(f"The lease of {replica} has expired; it rejoins under a new id")


def _conflict(name: str, ours: str, theirs: str, namespace: str) -> str:
    if name == "version":
        return (
            f"This replica uses version {ours} of the data in Redis, but the living replicas of namespace "
            f"{namespace!r} use version {theirs}: install the same release everywhere, or stop them all first"
        )
    return (
        f"LIFECYCLE_{name.upper()}={ours} differs from {theirs}, which the living replicas of namespace "
        f"{namespace!r} use: set the same value everywhere, or stop all replicas first"
    )
