"""Checks of the cluster: who lives, who is buried, who has been forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import orjson
from redis.exceptions import ResponseError

from lifecycle.cli.doctor.finding import Finding, fail, ok, warn
from lifecycle.cli.output import duration
from lifecycle.queries import cluster
from lifecycle.store.results import Roster
from lifecycle.store.scripts import SCHEMA_VERSION, Store
from lifecycle.types import Replica, Role

_GROUP = "workers"
_LEASE_TOLERANCE_MS = 50
_SHOWN = 5
_MODELS = 50  # looked at; a bound, as known models are up to a thousand


async def check_cluster(store: Store) -> list[Finding]:
    roster = await store.roster()
    living = await cluster.replicas(store)
    return [
        *_replicas(living, roster),
        await _configuration(store, living),
        _versions(roster),
        await _expired(store, roster, living),
        await _pending_cleanup(store),
        *await _queues(store, roster, {r.id for r in living}),
    ]


def _replicas(living: Sequence[Replica], roster: Roster) -> list[Finding]:
    findings = []
    for role in Role:
        own = [replica for replica in living if replica.role == role]
        draining = sum(replica.state == "draining" for replica in own)
        message = f"{len(own)} alive" + (f", {draining} draining" if draining else "")
        if own:
            findings.append(ok(f"{role}s", message))
        else:
            findings.append(warn(f"{role}s", message, f"start one: lifecycle {role}, or see --namespace"))
    stuck = sum(replica.stuck for replica in living)
    if stuck:
        names = ", ".join(replica.id for replica in living if replica.stuck)
        findings.append(fail("engines", f"{stuck} stuck", f"they did not end when killed; restart {names}"))
    if roster.grace and living:
        advice = "nobody is declared dead until it is over; wait one lease"
        findings.append(warn("grace", "Redis was away, or its clock jumped", advice))
    return findings


async def _configuration(store: Store, living: Sequence[Replica]) -> Finding:
    """The first replica writes what must be common, the others compare. Who renews for longer has not compared."""
    theirs = (await store.command("HGET", store.keys.control + "config", "version") or b"").decode()
    settings = store.settings
    if theirs and theirs != SCHEMA_VERSION and living:
        advice = "use the command line of the same release as the replicas"
        return fail("configuration", f"the cluster's data has version {theirs}, ours is {SCHEMA_VERSION}", advice)
    limit_ms = settings.lease_secs * 1000 + _LEASE_TOLERANCE_MS
    odd = [replica.id for replica in living if replica.lease_expires_in_ms > limit_ms]
    if odd:
        return fail("configuration", f"leases longer than {settings.lease_secs:g} s: {', '.join(odd)}", "restart these")
    return ok("configuration", f"version {SCHEMA_VERSION}, shards {settings.shards}, lease {settings.lease_secs:g} s")


def _versions(roster: Roster) -> Finding:
    """Of the software. Replicas of two versions may work together; for longer than an update it is not meant."""
    running: dict[str, list[str]] = defaultdict(list)
    for replica in roster.replicas:
        running[str(orjson.loads(replica.about).get("version", "unknown"))].append(replica.id)
    if len(running) <= 1:
        return ok("versions", f"all replicas run {next(iter(running), 'nothing yet')}")
    each = "; ".join(f"{version}: {', '.join(sorted(ids)[:_SHOWN])}" for version, ids in sorted(running.items()))
    return warn("versions", each, "an update under way? wait; else restart those that were forgotten")


async def _expired(store: Store, roster: Roster, living: Sequence[Replica]) -> Finding:
    """Replicas that no longer count, and that no reaper has buried."""
    control, expired = store.keys.control, dict[str, float]()
    counted = {replica.id for replica in roster.replicas}  # during a grace an expired lease counts on
    for role in Role:
        flat = await store.command("ZRANGE", f"{control}{role}s", 0, -1, "WITHSCORES")
        leases = {replica.decode(): float(at) for replica, at in zip(flat[::2], flat[1::2], strict=True)}
        expired |= {replica: roster.now - at for replica, at in leases.items() if replica not in counted}
    expired = {replica: age for replica, age in expired.items() if age > 0}
    if not expired:
        return ok("leases", "none expired")
    message = f"expired, not buried yet: {', '.join(f'{i} ({duration(age)})' for i, age in sorted(expired.items()))}"
    if living and max(expired.values()) > store.settings.sweep_secs * 2:
        return fail("leases", message, "every living replica should do it within LIFECYCLE_SWEEP_SECS: see their logs")
    if living:
        return warn("leases", message, "wait for the next sweep")
    return warn("leases", message, "nobody is there to bury them: start a replica")


async def _pending_cleanup(store: Store) -> Finding:
    pending_cleanup = [name.decode() for name in await store.command("HKEYS", store.keys.control + "pending_cleanup")]
    if not pending_cleanup:
        return ok("cleanup", "none open")
    message = f"buried, requests not all dealt with: {', '.join(sorted(pending_cleanup))}"
    return warn("cleanup", message, "the living replicas go on with it at each sweep; should it stay, see their logs")


async def _queues(store: Store, roster: Roster, living: set[str]) -> list[Finding]:
    served = cluster.models_of(roster)
    names = sorted(roster.models)
    findings = [await _queue(store, model, model in served, living) for model in names[:_MODELS]]
    return findings or [ok("queues", "no model is known yet")]


async def _queue(store: Store, model: str, served: bool, living: set[str]) -> Finding:
    check, depth, groupless, lost = f"queue {model}", 0, 0, 0
    for prefix in store.keys.prefixes:
        for kind in ("queue:", "retry:"):
            key = f"{prefix}{kind}{model}"
            length = int(await store.command("XLEN", key))
            depth += length
            try:
                consumers = await store.command("XINFO", "CONSUMERS", key, _GROUP)
            except ResponseError:  # no such key, or no such group
                groupless += length > 0 or served
                continue
            lost += sum(_pending(c) for c in consumers if _name(c) not in living)
    if not served:
        message = f"{depth} waiting, no live worker"
        return warn(check, message, f"start one: lifecycle worker --model {model}") if depth else ok(check, message)
    if groupless:
        return warn(check, f"{groupless} streams without their consumer group", "its workers create it: see their logs")
    if lost:
        return warn(check, f"{lost} handed to workers that are gone", "the reaper hands them on at its next sweep")
    return ok(check, f"{depth} waiting")


def _fields(flat: Sequence[bytes | int]) -> dict[bytes, bytes | int]:
    return {bytes(name): value for name, value in zip(flat[::2], flat[1::2], strict=True) if isinstance(name, bytes)}


def _pending(consumer: Sequence[bytes | int]) -> int:
    return int(_fields(consumer)[b"pending"])


def _name(consumer: Sequence[bytes | int]) -> str:
    name = _fields(consumer)[b"name"]
    return name.decode() if isinstance(name, bytes) else str(name)
