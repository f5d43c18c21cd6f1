"""Measure idle replicas, heartbeats and silent streams, and queries about the whole cluster."""

from __future__ import annotations

import asyncio
import time
from itertools import cycle, islice

import orjson

from benchmarks.account import Accountant, Bill
from benchmarks.caller import Caller, encode
from benchmarks.load import Spread
from benchmarks.measurement import Effort, Measurement
from benchmarks.profile import profiled
from benchmarks.stream import Stream, completion
from benchmarks.system import Lifecycle, System

_SILENT = "paced 1 0"  # one token, then nothing
_CALLS = 100
_OPENING = 50  # streams at once
_WARM_STREAMS = 50


async def idle(system: System, effort: Effort) -> Measurement:
    """Replicas that have nothing to do."""
    return await _standing(system, effort)


async def heartbeat(system: System, effort: Effort, count: int) -> Measurement:
    """Measure `count` running requests without tokens or readers: only heartbeats and sweeps remain."""
    request = completion(_SILENT, x_on_disconnect="continue")
    for start in range(0, count, _OPENING):
        some = await _open(system, min(_OPENING, count - start), request)
        for stream in some:
            stream.close()
    found = await _standing(system, effort)
    found.faults += await _miscounted(system, count)
    return found


async def memory(system: System, effort: Effort, count: int) -> Measurement:
    """Streams that are open and silent: what each adds to every part."""
    accountant = Accountant(system.pids, system.redis_url)
    streams = await _open(system, min(_WARM_STREAMS, count), completion(_SILENT))
    await asyncio.sleep(effort.settle_secs)
    before = accountant.resident_bytes()
    for start in range(0, count, _OPENING):
        streams += await _open(system, min(_OPENING, count - start), completion(_SILENT))
    await asyncio.sleep(effort.settle_secs)
    after = accountant.resident_bytes()
    for stream in streams:
        stream.close()
    accountant.close()
    return Measurement({f"{part}_kib_per_stream": (size - before[part]) / 1024 / count for part, size in after.items()})


async def questions(system: System, effort: Effort, count: int) -> Measurement:
    """Measure a frontend's queries about the whole cluster with `count` requests inflight."""
    assert isinstance(system, Lifecycle)
    found = Measurement()
    async with system.parked(count):
        caller = await Caller.connect(system.urls[0])
        for name, path in (
            ("inflight", "/v1/inflight"),
            ("requests", "/v1/requests?status=inflight&limit=100"),
            ("metrics", "/metrics"),
        ):
            took_ns, body = await _ask(caller, path, min(_CALLS, effort.trials))
            found.figures |= Spread.of_ns(took_ns).figures(name)
            found.details[path] = {"bytes": len(body), "took_ns": took_ns}
        found.figures["metrics_kib"] = found.details["/metrics"]["bytes"] / 1024
        caller.close()
        found.faults += await _miscounted(system, count)
    return found


async def _standing(system: System, effort: Effort) -> Measurement:
    await asyncio.sleep(effort.settle_secs)
    accountant = Accountant(system.pids, system.redis_url)
    before = accountant.now()
    async with profiled(system, effort, effort.standing_secs):
        await asyncio.sleep(effort.standing_secs)
    bill = Bill.between(before, accountant.now())
    accountant.close()
    figures = {f"{part}_cpu_ms_per_sec": secs * 1e3 / bill.secs for part, secs in bill.cpu_secs.items()}
    figures["redis_commands_per_sec"] = sum(bill.calls.values()) / bill.secs
    figures["redis_bytes_per_sec"] = bill.redis_bytes / bill.secs
    return Measurement(figures, details={"bill": bill})


async def _open(system: System, count: int, request: bytes) -> list[Stream]:
    """All of them with their first token."""
    streams = [await Stream.open(url, request) for url in islice(cycle(system.urls), count)]
    for stream in streams:
        stream.begin()
    await asyncio.gather(*(stream.first for stream in streams))
    return streams


async def _ask(caller: Caller, path: str, times: int) -> tuple[list[int], bytes]:
    took_ns: list[int] = []
    body = b""
    for _ in range(times):
        began_ns = time.monotonic_ns()
        body = (await caller.call(encode("GET", path))).body
        took_ns.append(time.monotonic_ns() - began_ns)
    return took_ns, body


async def _miscounted(system: System, count: int) -> list[str]:
    caller = await Caller.connect(system.urls[0])
    total = orjson.loads((await caller.call(encode("GET", "/v1/inflight"))).body).get("total")
    caller.close()
    return [] if total == count else [f"{count} requests were inflight, {total} were counted"]
