"""Measure the longest run of each script beside many inflight and many finished requests, by Redis's own clock.

While a script runs, every other call waits, so each has to be bounded however much there is: two milliseconds."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable

from benchmarks.core import bench
from benchmarks.core.table import Table
from benchmarks.core.transitions import transitions
from lifecycle.ids import new_nonce
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import browse, bulk_cancel, cluster
from lifecycle.store.connect import open_store
from lifecycle.store.quota_slots import QuotaSlot, QuotaSlots
from lifecycle.store.results import ExpiredReplica
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, OnDisconnect, Role
from tests.admitting import new_request
from tests.joining import join
from tests.servers import ask, info

_OWNER = "acme"  # of a hundredth of the requests
_REPLICAS = 300  # that expire at the same time
_PART = 10  # the part of the inflight requests that one replica holds, or that falls due at once, is 1/10
_NOBODY = "nobody"
_CALLS = 7 * 200  # of requests that run: 200 for each script that changes one of them
_LOGGED_US = 50
_SCRIPTS = ("cmdstat_evalsha", "cmdstat_eval")

Work = Callable[[], Awaitable[object]]


async def measure(quick: bool) -> list[Table]:
    """Fill one shard, then time each script that looks at many requests; the longest call of each counts."""
    count = 1_000 if quick else 100_000
    table = Table(
        f"The longest run of each script beside {count:,} inflight and {count:,} finished requests",
        ("call", "scripts", "median, ms", "p99, ms", "worst, ms"),
        note="One shard; a replica that is cleaned up held a tenth of the requests. Redis measures wall time, so a\n"
        "run that the machine interrupts counts as longer: compare the worst with that of a single cancel.",
    )
    with bench.server() as redis:
        async with open_store(bench.settings_for(redis.url)) as store:
            if os.geteuid() == 0:
                os.setpriority(os.PRIO_PROCESS, int(info(redis, "server")["process_id"]), -20)
            ask(redis, "CONFIG", "SET", "slowlog-log-slower-than", _LOGGED_US)
            await _fill(store, count)
            running = [f"live-{number}" for number in range(min(_CALLS, count // _PART))]
            changing = transitions(store, redis, running, _REPLICAS, _forget)
            for label, work in _reading(store, count) + changing + _ending(store, redis, count):
                _forget(redis)
                await work()
                table.add(label, *_times(redis))
    return [table]


def _forget(redis: EmbeddedRedis) -> None:
    bench.forget_script_times(redis)
    bench.reset_counters(redis)


def _times(redis: EmbeddedRedis) -> tuple[int, float, float, float]:
    """Return how many scripts ran, and the median, 99th percentile and longest of their durations in ms.

    The log holds the last 20,000 commands that took longer than `_LOGGED_US`, so what runs inside scripts does not fill
    it. Shorter runs count as that long.
    """
    stats = info(redis, "commandstats")
    found = [dict(pair.split("=") for pair in stats[name].split(",")) for name in _SCRIPTS if name in stats]
    calls = sum(int(values["calls"]) - int(values["failed_calls"]) for values in found)
    logged = sorted(bench.script_times(redis).durations_ms)
    durations = [_LOGGED_US / 1000] * (calls - len(logged)) + logged
    return calls, durations[len(durations) // 2], durations[math.ceil(0.99 * len(durations)) - 1], durations[-1]


async def _fill(store: Store, count: int) -> None:
    """Admit and end `count` requests, then admit `count` and start a tenth of them."""
    await join(store, bench.WORKER, Role.WORKER, {}, [bench.MODEL])
    for prefix, ends in (("done", True), ("live", False)):
        for begin in range(0, count, 500):
            some = range(begin, min(begin + 500, count))
            await asyncio.gather(*(_admit(store, f"{prefix}-{number}", number) for number in some))
            if ends:
                await asyncio.gather(*(store.cancel(f"{prefix}-{n}", CancelMode.KILL, "") for n in some))
    await bench.start_queued(store, count // _PART)


async def _admit(store: Store, rid: str, number: int) -> None:
    """Queue a request under one of ten frontends; every hundredth belongs to an owner, every tenth has a deadline."""
    new = new_request(
        rid,
        new_nonce(),
        bench.LABELS,
        f"frontend-{number % _PART}",
        bench.BODY,
        OnDisconnect.CANCEL.value,
        owner=_OWNER if number % 100 == 0 else "others",
        deadline_secs=3600.0 if rid.startswith("live") and number % _PART == 3 else 0.0,
    )
    admission = await store.admit(new)
    if admission.outcome != "admitted":
        raise RuntimeError(f"request {rid} was not admitted: {admission.outcome}")


def _reading(store: Store, count: int) -> list[tuple[str, Work]]:
    """Return the calls that change nothing."""
    none = cluster.Filter(model=_NOBODY)
    inflight = cluster.Filter(status="inflight")
    rows = browse.Query("active", "oldest", "", (), 500)
    nothing = browse.Query("expiries", "newest", "", ("zzz",), 50)
    slots = [QuotaSlot(f"live-{number}", "nonce", 0.0) for number in range(1_000)]
    held = [f"live-{number}" for number in range(count)]
    selector = bulk_cancel.Selector(none)
    return [
        ("list: a page of 1,000", lambda: cluster.list_requests(store, inflight, 999)),
        ("list: all, no match", lambda: cluster.list_requests(store, none, 100)),
        ("list: inflight, no match", lambda: cluster.list_requests(store, none._replace(status="inflight"), 100)),
        ("list: a page of an owner", lambda: cluster.list_requests(store, cluster.Filter(owner=_OWNER), 100)),
        ("list: an owner without requests", lambda: cluster.list_requests(store, cluster.Filter(owner=_NOBODY), 100)),
        ("browse: 500 rows", lambda: browse.browse(store, rows)),
        ("browse: no match", lambda: browse.browse(store, nothing)),
        (
            "bulk cancel: no match",
            lambda: bulk_cancel.cancel_selected(store, selector, CancelMode.KILL, "", by="", limit=100),
        ),
        ("find_released: 1,000 slots", lambda: QuotaSlots(store).find_released(0, slots)),
        ("reconcile_shard: numbers only", lambda: store.reconcile_shard(0, bench.WORKER, Role.WORKER)),
        (f"reconcile_shard: {count:,} ids", lambda: store.reconcile_shard(0, bench.WORKER, Role.WORKER, held)),
    ]


def _ending(store: Store, redis: EmbeddedRedis, count: int) -> list[tuple[str, Work]]:
    """Return the calls that end requests, in an order in which each finds some."""
    living = [f"frontend-{number}" for number in range(1, _PART)]
    cancelled = [f"live-{number}" for number in range(count // 2, count // 2 + 200)]

    async def cancel() -> None:
        await asyncio.gather(*(store.cancel(rid, CancelMode.KILL, "") for rid in cancelled))

    async def expire() -> None:
        for number in range(_REPLICAS):
            await store.command("ZADD", store.keys.prefixes[0] + "workers", "1", f"gone-{number}")
        _forget(redis)
        for _ in range(_REPLICAS // 40 + 1):
            await store.expire(0)

    return [
        ("cancel: a queued request", cancel),
        (f"sweep: {count // _PART:,} past their deadline", lambda: _past_deadline(store, redis)),
        (
            f"reap: a worker with {count // _PART:,}",
            lambda: _reap_all(store, ExpiredReplica(bench.WORKER, Role.WORKER), living),
        ),
        (
            f"reap: a frontend with {count // _PART:,}",
            lambda: _reap_all(store, ExpiredReplica("frontend-1", Role.FRONTEND), living[1:]),
        ),
        (f"expire: {_REPLICAS} replicas", expire),
        (f"sweep: more than {count:,} expired records", lambda: _forget_all(store, redis)),
    ]


async def _sweep_all(store: Store) -> None:
    while (await store.sweep(0)).more:
        pass


async def _reap_all(store: Store, expired: ExpiredReplica, new_owners: list[str]) -> None:
    while True:
        reaped = await store.reap(0, expired)
        if reaped.done or not (reaped.ended or reaped.moved):
            return


async def _forget_all(store: Store, redis: EmbeddedRedis) -> None:
    """Let the retention of every finished record end now, and sweep."""
    await _fall_due(store, redis, "expiries")
    await _sweep_all(store)


async def _past_deadline(store: Store, redis: EmbeddedRedis) -> None:
    """Let every deadline pass now, and sweep."""
    await _fall_due(store, redis, "deadlines")
    await _sweep_all(store)


async def _fall_due(store: Store, redis: EmbeddedRedis, index: str) -> None:
    key = store.keys.prefixes[0] + index
    members = await store.command("ZRANGE", key, 0, -1)
    for begin in range(0, len(members), 1000):
        await store.command("ZADD", key, *(word for member in members[begin : begin + 1000] for word in ("1", member)))
    _forget(redis)
