"""Check whether the Redis server is suitable for the cluster's state."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from lifecycle.cli.doctor.finding import Finding, Level, fail, ok, warn
from lifecycle.errors import StoreError
from lifecycle.store.server_info import EVICTION_ADVICE, FIT_POLICY, Info, eviction_policy, parse_info, read_infos
from lifecycle.store.transitions import Store

_OLDEST = (7, 0)
_SLOW_MS = 50.0
_FULL = 0.75
_BODIES_LEAVE = 2  # how many times the bytes that may wait a server's memory should have
_CLOCK_OFFSET_SECS = 1.0
_FULL_COVERAGE = "cluster-require-full-coverage"
_REPLICA_LINE = re.compile(r"slave\d+")
_SEVERITY = (Level.OK, Level.WARN, Level.FAIL)


async def check_server(store: Store) -> list[Finding]:
    """Return the findings on the server; of a Redis Cluster's servers, each check shows the worst.

    Raises StoreUnavailable when a server is out of reach.
    """
    asked_at = time.monotonic()
    await store.command("PING")
    findings = [_reachable((time.monotonic() - asked_at) * 1000), await _clock(store)]
    try:
        infos = await read_infos(store)
    except (StoreError, RedisError) as failure:
        advice = "use a real Redis or Valkey server, and allow this user the command INFO"
        return [*findings, warn("version", f"the command INFO failed: {failure}", advice)]
    checks = (version, role, eviction, memory, persistence, clients)
    worst = [max(map(check, infos), key=lambda found: _SEVERITY.index(found.level)) for check in checks]
    wanted = store.settings.wait_replicas
    if wanted:
        worst.append(max((waiting(info, wanted) for info in infos), key=lambda found: _SEVERITY.index(found.level)))
    in_cluster = any(info.get("cluster_enabled") == "1" for info in infos)
    waiting = sum((await store.queued_bytes()).values())
    findings += [*worst, bodies(infos, waiting, store.settings.queue_bytes)]
    return [*findings, *([await _coverage(store)] if in_cluster else [])]


def _reachable(took_ms: float) -> Finding:
    message = f"answers in {took_ms:.1f} ms"
    if took_ms < _SLOW_MS:
        return ok("redis", message)
    return warn("redis", message, "every request waits for several round trips; move Redis closer to the replicas")


async def _clock(store: Store) -> Finding:
    before = time.time()
    theirs = await store.now()
    offset = theirs - (before + time.time()) / 2
    message = f"Redis's clock is {offset:+.3f} s from this machine's"
    if abs(offset) <= _CLOCK_OFFSET_SECS:
        return ok("clock", message)
    return warn("clock", message, "the times in logs will not match the times in records; run NTP on both machines")


def version(info: Info) -> Finding:
    """Check that the server is at least Redis 7.0 or a Valkey."""
    valkey = info.get("valkey_version")
    shown = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', '(unknown)')}"
    numbers = [int(part) for part in (valkey or info.get("redis_version", "")).split(".")[:2] if part.isdigit()]
    if tuple(numbers) >= _OLDEST:
        return ok("version", shown)
    return fail("version", shown, "run Redis 7.0 or newer, or Valkey")


def role(info: Info) -> Finding:
    """Check that the server is a primary."""
    found = info.get("role", "master")
    if found == "master":
        return ok("role", f"a primary with {info.get('connected_slaves', '0')} replicas")
    return fail("role", f"a read-only {found}", "point LIFECYCLE_REDIS_URL at the primary")


def eviction(info: Info) -> Finding:
    """Check that a full server refuses writes instead of evicting keys."""
    policy = eviction_policy(info)
    if policy == FIT_POLICY:
        return ok("eviction", policy)
    return (warn if info.get("maxmemory", "0") == "0" else fail)("eviction", policy, EVICTION_ADVICE)


def memory(info: Info) -> Finding:
    """Check how much of the memory limit is used."""
    used, limit = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    if limit == 0:
        return ok("memory", f"{_mib(used)} used, no limit (maxmemory 0)")
    message = f"{_mib(used)} of {_mib(limit)} used"
    if used < limit * _FULL:
        return ok("memory", message)
    advice = "new requests are refused from nine tenths on; raise maxmemory, or lower LIFECYCLE_RETENTION_SECS"
    return (warn if used < limit else fail)("memory", message, advice)


def bodies(infos: Sequence[Info], waiting: int, most: int) -> Finding:
    """Check that the bodies of queued requests leave memory for the answers, and how much of their limit is used.

    They are spread over all servers of a Redis Cluster.
    """
    limits = [int(info.get("maxmemory", "0")) for info in infos]
    message = f"{_mib(waiting)} of queued requests, at most {_mib(most)}"
    if all(limits) and sum(limits) < most * _BODIES_LEAVE:
        advice = "lower LIFECYCLE_QUEUE_BYTES to half of maxmemory at most, or raise maxmemory"
        return warn("bodies", f"{message}, with a maxmemory of {_mib(sum(limits))}", advice)
    if waiting < most * _FULL:
        return ok("bodies", message)
    return warn("bodies", message, "further calls will get a 503; add workers, or raise LIFECYCLE_QUEUE_BYTES")


def persistence(info: Info) -> Finding:
    """Check that writes survive a restart of the server."""
    append_only = info.get("aof_enabled") == "1"
    if append_only and info.get("aof_last_write_status", "ok") != "ok":
        return fail(
            "persistence", "the append-only file cannot be written", "see the log of Redis; often the disk is full"
        )
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return fail(
            "persistence", "the last snapshot failed", "see the log of Redis; it may refuse writes because of this"
        )
    if append_only:
        return ok("persistence", "append-only file")
    advice = "a restart of Redis loses inflight requests and totals; to keep them, CONFIG SET appendonly yes"
    return warn("persistence", "no append-only file", advice)


def waiting(info: Info, wanted: int) -> Finding:
    """Check that as many replicas follow a primary as LIFECYCLE_WAIT_REPLICAS waits for."""
    states = (value for name, value in info.items() if _REPLICA_LINE.fullmatch(name))
    online = sum("state=online" in state.split(",") for state in states)
    message = f"{online} online of the {wanted} that LIFECYCLE_WAIT_REPLICAS waits for"
    if online >= wanted:
        return ok("replicas", message)
    advice = (
        "every admission, start, cancel and end waits LIFECYCLE_WAIT_TIMEOUT_MS in vain: "
        "connect more replicas, or lower LIFECYCLE_WAIT_REPLICAS"
    )
    return fail("replicas", message, advice)


def clients(info: Info) -> Finding:
    """Check how many of the allowed connections are used."""
    connected, most = int(info.get("connected_clients", "0")), int(info.get("maxclients", "0"))
    message = f"{connected} connected" + (f" of {most}" if most else "")
    if not most or connected < most * _FULL:
        return ok("clients", message)
    advice = "further replicas will be refused; raise maxclients, or find the client that leaves connections open"
    return (warn if connected < most else fail)("clients", message, advice)


async def _coverage(store: Store) -> Finding:
    """Check that a Redis Cluster serves all slots, and that one lost slot does not stop the others."""
    strict = False
    for node in await store.commands.nodes():
        state = parse_info((await node.execute("CLUSTER", "INFO")).decode(errors="replace"))
        if state.get("cluster_state") != "ok":
            message = f"state {state.get('cluster_state')}, {state.get('cluster_slots_ok', '?')} of 16384 slots served"
            return fail("coverage", message, "see CLUSTER NODES; a primary is down, or slots have no owner")
        try:
            _, answer = await node.execute("CONFIG", "GET", _FULL_COVERAGE)
        except (StoreError, RedisError, ValueError):
            return warn("coverage", f"{_FULL_COVERAGE} is not known", "allow this user the command CONFIG|GET")
        strict = strict or answer == b"yes"
    if not strict:
        return ok("coverage", f"{_FULL_COVERAGE} no: other slots stay available when a primary is lost")
    advice = f"one lost primary would stop everything: CONFIG SET {_FULL_COVERAGE} no on every node"
    return warn("coverage", f"{_FULL_COVERAGE} yes", advice)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
