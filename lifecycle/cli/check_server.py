"""Checks of the Redis server: can the cluster's state be trusted to it?"""

from __future__ import annotations

import time

from redis.exceptions import RedisError

from lifecycle.cli.finding import Finding, Level, fail, ok, warn
from lifecycle.errors import StoreUnavailable
from lifecycle.store.scripts import Store
from lifecycle.store.server_info import EVICTION_ADVICE, FIT_POLICY, Info, eviction_policy, read_infos

_OLDEST = (7, 0)
_SLOW_MS = 50.0
_FULL = 0.75
_CLOCK_OFFSET_SECS = 1.0
_SEVERITY = (Level.OK, Level.WARN, Level.FAIL)


async def check_server(store: Store) -> list[Finding]:
    """Of a Cluster's servers the worst is shown. Raises StoreUnavailable when one is out of reach."""
    asked_at = time.monotonic()
    await store.command("PING")
    findings = [_reachable((time.monotonic() - asked_at) * 1000), await _clock(store)]
    try:
        infos = await read_infos(store)
    except StoreUnavailable:
        raise
    except RedisError as failure:
        advice = "use a real Redis or Valkey, and allow this user the command INFO"
        return [*findings, warn("version", f"the server does not describe itself: {failure}", advice)]
    checks = (version, role, eviction, memory, persistence)
    return [*findings, *(max(map(check, infos), key=lambda found: _SEVERITY.index(found.level)) for check in checks)]


def _reachable(took_ms: float) -> Finding:
    message = f"answers in {took_ms:.1f} ms"
    if took_ms < _SLOW_MS:
        return ok("redis", message)
    return warn("redis", message, "every request waits for several such round trips: bring Redis nearer")


async def _clock(store: Store) -> Finding:
    before = time.time()
    theirs = await store.now()
    offset = theirs - (before + time.time()) / 2
    message = f"Redis's clock is {offset:+.3f} s from this machine's"
    if abs(offset) <= _CLOCK_OFFSET_SECS:
        return ok("clock", message)
    return warn("clock", message, "nothing depends on it, but logs will not line up with records: run NTP on both")


def version(info: Info) -> Finding:
    valkey = info.get("valkey_version")
    shown = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', '(unknown)')}"
    numbers = [int(part) for part in (valkey or info.get("redis_version", "")).split(".")[:2] if part.isdigit()]
    if tuple(numbers) >= _OLDEST:
        return ok("version", shown)
    return fail("version", shown, "run Redis 7.0 or newer, or Valkey")


def role(info: Info) -> Finding:
    found = info.get("role", "master")
    if found == "master":
        return ok("role", f"a primary with {info.get('connected_slaves', '0')} replicas")
    return fail("role", f"a read-only {found}", "point LIFECYCLE_REDIS_URL at the primary")


def eviction(info: Info) -> Finding:
    policy = eviction_policy(info)
    if policy == FIT_POLICY:
        return ok("eviction", policy)
    return (warn if info.get("maxmemory", "0") == "0" else fail)("eviction", policy, EVICTION_ADVICE)


def memory(info: Info) -> Finding:
    used, limit = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    if limit == 0:
        return ok("memory", f"{_mib(used)} used, no limit (maxmemory 0)")
    message = f"{_mib(used)} of {_mib(limit)} used"
    if used < limit * _FULL:
        return ok("memory", message)
    advice = "new requests are refused when it is full: raise maxmemory, or lower LIFECYCLE_RETENTION_SECS"
    return (warn if used < limit else fail)("memory", message, advice)


def persistence(info: Info) -> Finding:
    append_only = info.get("aof_enabled") == "1"
    if append_only and info.get("aof_last_write_status", "ok") != "ok":
        return fail("persistence", "the append-only file cannot be written", "see Redis's log; often the disk is full")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return fail("persistence", "the last snapshot failed", "see Redis's log; it may refuse writes because of this")
    if append_only:
        return ok("persistence", "append-only file")
    advice = "a restart of Redis loses what is inflight and the totals; where that matters: CONFIG SET appendonly yes"
    return warn("persistence", "no append-only file", advice)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
