"""Check the cluster: its replicas, their leases and settings, unfinished clean-ups, and the queues."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import orjson

from lifecycle.cli.doctor.finding import REPAIR, Finding, fail, ok, warn
from lifecycle.cli.output import duration
from lifecycle.ids import replica_of
from lifecycle.queries import cluster
from lifecycle.records import Replica
from lifecycle.store.control_slot import SCHEMA_VERSION
from lifecycle.store.results import Roster
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import LivingWorker, by_model, models_of, outage_of, workers_of
from lifecycle.types import ReplicaState, Role

_LEASE_TOLERANCE_MS = 50
_SHOWN = 5
_HEARTBEATS = 3  # within which a new replica has told every shard what it holds
_MODELS = 50  # maximum number of models that are checked; up to a thousand can be known


async def check_cluster(store: Store) -> list[Finding]:
    """Return the findings on replicas, settings, leases and queues. Raises StoreUnavailable."""
    roster = await store.roster()
    living, workers = await cluster.replicas(store), workers_of(roster, store.settings.lease_secs)
    return [
        *_replicas(living, roster),
        *_health(workers),
        await _configuration(store, living),
        _versions(roster),
        await _expired(store, roster, living),
        await _pending_cleanup(store, living),
        await _reassertion(store, roster, living),
        *await _queues(store, roster, models_of(workers)),
    ]


def _replicas(living: Sequence[Replica], roster: Roster) -> list[Finding]:
    findings = []
    for role in Role:
        own = [replica for replica in living if replica.role == role]
        states = Counter(replica.state for replica in own if replica.state != ReplicaState.READY)
        message = ", ".join([f"{len(own)} alive", *(f"{number} {state}" for state, number in sorted(states.items()))])
        if own:
            findings.append(ok(f"{role}s", message))
        else:
            findings.append(warn(f"{role}s", message, f"start one with 'lifecycle {role}', or check --namespace"))
    stuck = sum(replica.stuck for replica in living)
    if stuck:
        names = ", ".join(replica.id for replica in living if replica.stuck)
        findings.append(fail("engines", f"{stuck} stuck", f"their engines did not end when killed; restart {names}"))
    if roster.grace and living:
        advice = "no lease expires until the grace period is over; wait one lease"
        findings.append(warn("grace", "Redis was unreachable, or its clock jumped", advice))
    return findings


def _health(workers: Sequence[LivingWorker]) -> list[Finding]:
    """Report the workers whose engines cannot serve, and the models that have no other worker."""
    findings = []
    for worker in workers:
        if worker.state == ReplicaState.UNHEALTHY:
            message = f"the engine of {worker.id} cannot serve: {worker.error}"
            findings.append(warn("health", message, "see its log; it takes requests once a probe succeeds"))
    for model, serving in sorted(by_model(workers).items()):
        if outage_of(serving) is not None:
            advice = "start a worker with a healthy engine, or repair what the findings above name"
            findings.append(fail("health", f"model {model!r} has no healthy worker", advice))
    return findings


async def _configuration(store: Store, living: Sequence[Replica]) -> Finding:
    """Compare the shared settings: the first replica writes them, later ones must match.

    A replica whose lease is longer than the shared one did not compare.
    """
    theirs = (await store.command("HGET", store.keys.control + "config", "version") or b"").decode()
    settings = store.settings
    if theirs and theirs != SCHEMA_VERSION and living:
        advice = "use the lifecycle command of the same release as the replicas"
        return fail(
            "configuration", f"the cluster's schema version is {theirs}, this command's is {SCHEMA_VERSION}", advice
        )
    limit_ms = settings.lease_secs * 1000 + _LEASE_TOLERANCE_MS
    odd = [replica.id for replica in living if replica.lease_expires_in_ms > limit_ms]
    if odd:
        return fail(
            "configuration", f"leases longer than {settings.lease_secs:g} s: {', '.join(odd)}", "restart these replicas"
        )
    return ok("configuration", f"version {SCHEMA_VERSION}, shards {settings.shards}, lease {settings.lease_secs:g} s")


def _versions(roster: Roster) -> Finding:
    """Compare the software versions of the replicas. Two versions should run together only during an upgrade."""
    running: dict[str, list[str]] = defaultdict(list)
    for replica in roster.replicas:
        running[str(orjson.loads(replica.about).get("version", "unknown"))].append(replica.id)
    if len(running) <= 1:
        return ok("versions", f"all replicas run {next(iter(running), 'nothing yet')}")
    each = "; ".join(f"{version}: {', '.join(sorted(ids)[:_SHOWN])}" for version, ids in sorted(running.items()))
    return warn(
        "versions", each, "if an upgrade is under way, wait; otherwise restart the replicas with the old version"
    )


async def _expired(store: Store, roster: Roster, living: Sequence[Replica]) -> Finding:
    """Find replicas whose lease in a shard has expired and that no reaper has removed."""
    ends = {} if roster.grace else await cluster.leases(store)  # during a grace an expired lease counts on
    now = await store.now()
    expired = {replica: now - at for replica, at in ends.items() if now > at}
    if not expired:
        return ok("leases", "none expired")
    message = (
        f"expired, not cleaned up yet: {', '.join(f'{i} ({duration(age)})' for i, age in sorted(expired.items()))}"
    )
    if living and max(expired.values()) > store.settings.sweep_secs * 2:
        return fail("leases", message, "the replicas should do this within LIFECYCLE_SWEEP_SECS; see their logs")
    if living:
        return warn("leases", message, "wait for the next sweep")
    return warn("leases", message, f"no replica is running that could clean up; start one, or {REPAIR}")


async def _pending_cleanup(store: Store, living: Sequence[Replica]) -> Finding:
    keys = (prefix + "pending_cleanup" for prefix in store.keys.prefixes)
    replies = await store.commands.execute_many(("HRANDFIELD", key, _SHOWN) for key in keys)
    pending_cleanup = sorted({name.decode() for names in replies for name in names or ()})
    if not pending_cleanup:
        return ok("cleanup", "none pending")
    message = f"expired replicas whose requests are not all cleaned up: {', '.join(pending_cleanup[:_SHOWN])}"
    if not living:
        return warn("cleanup", message, f"no replica is running that could continue; start one, or {REPAIR}")
    return warn("cleanup", message, "the replicas continue at each sweep; if this does not go away, see their logs")


async def _reassertion(store: Store, roster: Roster, living: Sequence[Replica]) -> Finding:
    """Find replicas that have not told each shard what they hold, which they do at once after a loss of data."""
    shards = await store.commands.execute_many([("HKEYS", prefix + "ticks") for prefix in store.keys.prefixes])
    known = set.intersection(*({replica_of(name.decode()) for name in names} for names in shards))
    joined_before = roster.now - store.settings.heartbeat_secs * _HEARTBEATS
    late = [
        replica.id
        for replica in living
        if replica.reasserting or (replica.started_at < joined_before and replica.id not in known)
    ]
    if not late:
        return ok("reassertion", "every shard knows what each replica holds")
    message = f"Redis has lost data, and does not know again what these hold: {', '.join(sorted(late)[:_SHOWN])}"
    advice = "they tell it with their next heartbeats; if this does not go away, see their logs"
    return warn("reassertion", message, advice)


async def _queues(store: Store, roster: Roster, served: Collection[str]) -> list[Finding]:
    names = sorted(roster.models)
    findings = [await _queue(store, model, model in served) for model in names[:_MODELS]]
    return findings or [ok("queues", "no model is known yet")]


async def _queue(store: Store, model: str, served: bool) -> Finding:
    check, depth = f"queue {model}", 0
    for prefix in store.keys.prefixes:
        depth += sum(map(int, await store.command("HVALS", f"{prefix}queued:{model}")))
    if served:
        return ok(check, f"{depth} waiting")
    message = f"{depth} waiting, no worker"
    return warn(check, message, f"start one with 'lifecycle worker --model {model}'") if depth else ok(check, message)
