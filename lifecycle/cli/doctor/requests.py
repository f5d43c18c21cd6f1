"""Check inflight requests: their replicas must hold leases, cancels must be confirmed, limits must be enforced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lifecycle.cli.doctor.finding import REPAIR, Finding, fail, ok, warn
from lifecycle.cli.output import duration
from lifecycle.cli.view import silence_secs
from lifecycle.ids import replica_of
from lifecycle.queries import cluster
from lifecycle.queries.browse import oldest
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord, Status

_SAMPLE = 500  # the oldest requests, which are the ones that are checked
_SHOWN = 3
_SILENT_SECS = 600.0
_LATE_SWEEPS = 4
_LEASES = 4  # until an unknown replica has been found, has had its lease, and has been cleaned up
_WEBHOOK_LATE_SECS = 60.0
_WEBHOOKS_MANY = 50_000


async def check_requests(store: Store) -> list[Finding]:
    """Return the findings on the oldest inflight requests. Raises StoreUnavailable."""
    listing = await oldest(store, _SAMPLE)
    requests, now = [row.record for row in listing.rows], listing.as_of
    return [
        _inflight(requests, now),
        _cancels(requests, now, store.settings.lease_secs),
        await _orphans(store, requests, {replica.id for replica in await cluster.replicas(store)}),
        await _due(store, now),
        await _webhooks(store, now),
    ]


def _inflight(requests: Sequence[RequestRecord], now: float) -> Finding:
    if not requests:
        return ok("inflight", "nothing")
    number = f"{len(requests)}" if len(requests) < _SAMPLE else f"{_SAMPLE} or more"
    message = f"{number}, the oldest for {duration(now - requests[0].created_at)} ({requests[0].id})"
    silent = [request for request in requests if silence_secs(request, now) > _SILENT_SECS]
    if not silent:
        return ok("inflight", message)
    message += f"; {len(silent)} without a token for {duration(_SILENT_SECS)}: {_names(silent)}"
    advice = "end them with 'lifecycle cancel ID…', or set LIFECYCLE_BACKEND_STREAM_TIMEOUT_SECS to end silent requests"
    return warn("inflight", message, advice)


def _cancels(requests: Sequence[RequestRecord], now: float, lease_secs: float) -> Finding:
    """Find cancels that are not confirmed after a lease; a worker learns of one by its next heartbeat at the latest."""
    ignored = [r for r in requests if r.cancel_mode == "kill" and now - (r.cancel_requested_at or now) > lease_secs]
    if not ignored:
        return ok("cancels", "none overdue")
    workers = ", ".join(sorted({replica_of(request.worker or "?") for request in ignored}))
    message = f"{len(ignored)} not confirmed after {duration(lease_secs)}: {_names(ignored)}"
    return fail("cancels", message, f"their engines do not end; restart {workers}")


async def _orphans(store: Store, requests: Sequence[RequestRecord], living: set[str]) -> Finding:
    """Find requests of replicas that the leases do not know. The living replicas end them within four leases."""
    known = await cluster.known_replicas(store)
    suspects = [request for request in requests if not _held(request, known)]
    if suspects:  # read again: a reaper may have moved them in the meantime
        again = await asyncio.gather(*(store.read(request.id) for request in suspects))
        known = await cluster.known_replicas(store)
        suspects = [r for r in again if r is not None and not r.status.terminal and not _held(r, known)]
    if not suspects:
        return ok("orphans", "none")
    message = f"{len(suspects)} belong to a replica that has never had a lease or has lost it: {_names(suspects)}"
    if not living:
        return fail("orphans", message, f"no replica is running that could end them; start one, or {REPAIR}")
    wait = duration(store.settings.lease_secs * _LEASES)
    return warn("orphans", message, f"the replicas move or end them within {wait} at most, or {REPAIR}")


def _held(request: RequestRecord, known: set[str]) -> bool:
    running = request.status is Status.RUNNING
    return request.frontend in known and (not running or request.worker in known)


async def _due(store: Store, now: float) -> Finding:
    """Find limits and expiries that the replicas' sweeps should have handled long ago."""
    retry_for_secs = store.settings.sweep_secs * _LATE_SWEEPS
    latest = now - retry_for_secs
    prefixes = store.keys.prefixes
    steps = await store.commands.execute_many(("HGET", prefix + "clock", "lag") for prefix in prefixes)
    late = await store.commands.execute_many(
        ("ZCOUNT", prefix + name, "-inf", f"{latest - lag:.6f}")
        for prefix, step in zip(prefixes, steps, strict=True)
        for name, lag in (("deadlines", float(step or 0)), ("expiries", 0.0))
    )
    if not sum(late):
        return ok("sweeps", "nothing is overdue")
    message = f"{sum(late)} limits or expiries overdue by more than {duration(retry_for_secs)}"
    return warn("sweeps", message, f"no replica sweeps, or all are late; start one, see their logs, or {REPAIR}")


async def _webhooks(store: Store, now: float) -> Finding:
    """Find webhooks that nobody delivers, and an outbox that is close to its limit."""
    late_secs = max(_WEBHOOK_LATE_SECS, store.settings.heartbeat_secs * _LATE_SWEEPS)
    counts = await store.commands.execute_many(
        ("ZCOUNT", prefix + "webhooks", "-inf", highest)
        for prefix in store.keys.prefixes
        for highest in ("+inf", f"{now - late_secs:.6f}")
    )
    waiting, late, fullest = sum(counts[::2]), sum(counts[1::2]), max(counts[::2])
    if late:
        advice = "start a frontend with the settings LIFECYCLE_WEBHOOK_…; if there is one, its receivers are too slow"
        return warn("webhooks", f"{late} of {waiting} were not sent when they were due", advice)
    if fullest > _WEBHOOKS_MANY:
        advice = "further ones are dropped at 100,000; see which receiver fails in the frontends' logs"
        return warn("webhooks", f"{fullest} wait in one shard", advice)
    return ok("webhooks", f"{waiting} waiting")


def _names(requests: Sequence[RequestRecord]) -> str:
    return ", ".join(request.id for request in requests[:_SHOWN]) + (", …" if len(requests) > _SHOWN else "")
