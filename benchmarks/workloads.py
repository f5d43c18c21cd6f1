"""What is measured. Each workload gets a system of its own, freshly started, once for each repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import cycle, islice

import orjson

from benchmarks.account import Accountant, Bill
from benchmarks.caller import Caller, encode
from benchmarks.latency import Probe, cancel_to_stop, disconnect_to_stop
from benchmarks.load import Outcome, Plan, Spread, generate
from benchmarks.measurement import Effort, Measurement
from benchmarks.stream import Stream, Tally, completion
from benchmarks.system import Layout, System

_TOKENS_PER_SEC = 20
_TAIL_SECS = 0.5
_CALLS = 100
_OPENING = 50  # streams at once

Run = Callable[[System, Effort], Awaitable[Measurement]]


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    run: Run
    frontends: int = 1

    @property
    def layout(self) -> Layout:
        return Layout(self.frontends)


async def unpaced(system: System, effort: Effort) -> Measurement:
    """Engines that yield as fast as they go: tokens a second, and what the whole of it cost."""
    found = Measurement()
    for streams in effort.unpaced_streams:
        plan = Plan(system.urls, f"unpaced {effort.unpaced_tokens}", streams, effort.unpaced_tokens)
        accountant = Accountant(system.pids, system.redis_url)
        before = accountant.now()
        async with generate(plan) as load:
            outcome = await load.outcome()
        bill = Bill.between(before, accountant.now())
        accountant.close()
        _add_outcome(found, f"{streams}_streams", outcome, bill)
        found.figures[f"{streams}_streams_tokens_per_sec"] = outcome.tokens / outcome.elapsed_secs
        found.figures[f"{streams}_streams_first_token_p50_ms"] = outcome.first_token.p50_ms
    return found


async def paced(system: System, effort: Effort) -> Measurement:
    """Streams at a reader's pace: latency of each token, and CPU time of each part while they are under way."""
    found = Measurement()
    tokens = int((effort.paced_lead_secs + effort.paced_secs + _TAIL_SECS) * _TOKENS_PER_SEC)
    plan = Plan(system.urls, f"paced {tokens} {_TOKENS_PER_SEC}", effort.paced_streams, tokens, effort.paced_lead_secs)
    accountant = Accountant(system.pids, system.redis_url)
    async with generate(plan) as load:
        await asyncio.sleep(effort.paced_lead_secs)
        before = accountant.now()
        await asyncio.sleep(effort.paced_secs)
        after = accountant.now()
        outcome = await load.outcome()
    accountant.close()
    bill = Bill.between(before, after)
    billed = outcome.tokens_at(after.at_ns) - outcome.tokens_at(before.at_ns)
    _add_outcome(found, "paced", outcome, bill)
    found.figures |= {
        "yield_to_socket_p50_ms": outcome.delay.p50_ms,
        "yield_to_socket_p99_ms": outcome.delay.p99_ms,
        "yield_to_socket_max_ms": outcome.delay.max_ms,
        "first_token_p50_ms": outcome.first_token.p50_ms,
        **bill.per_token(max(1.0, billed)),
    }
    return found


async def cancel(system: System, effort: Effort) -> Measurement:
    """A cancel by id at another frontend, until the engine has been told. One at a time, on an idle system."""
    return await _latency(cancel_to_stop, system, effort)


async def disconnect(system: System, effort: Effort) -> Measurement:
    """A client that goes away, until the engine has been told. One at a time, on an idle system."""
    return await _latency(disconnect_to_stop, system, effort)


async def inflight(system: System, effort: Effort) -> Measurement:
    """`GET /v1/inflight`, however many requests there are to count."""
    found = Measurement()
    for count in effort.parked:
        async with system.parked(count):
            caller = await Caller.connect(system.urls[0])
            took_ns: list[int] = []
            for _ in range(_CALLS):
                began_ns = time.monotonic_ns()
                answer = await caller.call(encode("GET", "/v1/inflight"))
                took_ns.append(time.monotonic_ns() - began_ns)
            caller.close()
        total = orjson.loads(answer.body).get("total")
        if total != count:
            found.faults.append(f"{count} requests were inflight, {total} were counted")
        spread = Spread.of_ns(took_ns)
        found.figures |= {f"{count}_requests_p50_ms": spread.p50_ms, f"{count}_requests_p99_ms": spread.p99_ms}
    return found


async def memory(system: System, effort: Effort) -> Measurement:
    """Streams that are open and silent: what each adds to every part."""
    found, tally = Measurement(), Tally()
    accountant = Accountant(system.pids, system.redis_url)
    warm = await _open_streams(system.urls, effort.warm_streams, tally)
    await asyncio.sleep(effort.settle_secs)
    before = accountant.resident_bytes()
    streams = await _open_streams(system.urls, effort.idle_streams, tally)
    await asyncio.sleep(effort.settle_secs)
    after = accountant.resident_bytes()
    for stream in (*warm, *streams):
        stream.close()
    await asyncio.gather(*(stream.ended for stream in (*warm, *streams)))
    accountant.close()
    found.faults += tally.errors
    for part, size in after.items():
        found.figures[f"{part}_kib_per_stream"] = (size - before[part]) / 1024 / effort.idle_streams
    return found


WORKLOADS = (
    Workload("unpaced", unpaced),
    Workload("paced", paced),
    Workload("cancel", cancel, frontends=2),
    Workload("disconnect", disconnect),
    Workload("inflight", inflight),
    Workload("memory", memory),
)


def _add_outcome(found: Measurement, name: str, outcome: Outcome, bill: Bill) -> None:
    found.faults += [f"{name}: {number} {kind}" for kind, number in outcome.faults.items()]
    found.faults += [f"{name}: {error}" for error in outcome.errors]
    found.details[name] = {
        "tokens": outcome.tokens,
        "elapsed_secs": outcome.elapsed_secs,
        "yield_to_socket": outcome.delay,
        "first_token": outcome.first_token,
        "bill": bill,
    }


async def _latency(probe: Probe, system: System, effort: Effort) -> Measurement:
    delays_ns, faults = await probe(system.urls, effort.trials)
    spread = Spread.of_ns(delays_ns)
    figures = {"p50_ms": spread.p50_ms, "p99_ms": spread.p99_ms, "max_ms": spread.max_ms}
    return Measurement(figures, faults, {"delays_ns": delays_ns})


async def _open_streams(urls: Iterable[str], count: int, tally: Tally) -> list[Stream]:
    """All of them with their first token."""
    opened: list[Stream] = []
    targets = list(islice(cycle(urls), count))
    request = completion("open")
    for start in range(0, count, _OPENING):
        some = [await Stream.open(url, request, tally) for url in targets[start : start + _OPENING]]
        for stream in some:
            stream.begin()
        await asyncio.gather(*(stream.first for stream in some))
        opened += some
    return opened
