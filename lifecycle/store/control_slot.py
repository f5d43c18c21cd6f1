"""Read and write what is in the control slot: the list of replicas, the common settings, the secret of frontends."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any

import orjson

from lifecycle.errors import ConfigurationConflict
from lifecycle.store import common_settings
from lifecycle.store.common_settings import CHANGEABLE
from lifecycle.store.instructions import Instruction
from lifecycle.store.results import Roster, RosterEntry
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Role

log = logging.getLogger(__name__)

SCHEMA_VERSION = "11"
LISTED_PAGE = 200  # replicas whose announcements are read at once
FIGURES = ("counted", "probe_in_secs")
"""Name what a replica announces that changes all the time, for display: no other reads the list because of it."""


class ControlSlot(ScriptRunner):
    """The part of the Store that works in the control slot.

    The list of replicas shows them, and tells frontends which workers there are. What a replica holds does not depend
    on it, but on its lease in each shard: see Membership.
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
