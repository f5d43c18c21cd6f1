"""Measure the time from a client's act (a cancel, a disconnect) to the engine's own note of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.account import GENERATOR, Accountant, Bill
from benchmarks.caller import Caller, encode
from benchmarks.load import Plan, Spread, generate
from benchmarks.measurement import Effort, Measurement
from benchmarks.stream import Stream, completion
from benchmarks.system import System
from lifecycle.ids import new_request_id

_WAIT_SECS = 10.0
_POLL_SECS = 0.005
_PAUSE_SECS = 0.005  # an idle system is idle before each trial
_SLOWLY_PER_SEC, _FAST_PER_SEC = 1, 100
_OPENING = 50  # streams at once
_BUSY_STREAMS, _BUSY_TOKENS = 64, 200
_WARM_SECS = 1.0
_AT_MOST_SECS = 10.0

Act = Callable[[Stream, str], Awaitable[str]]
"""What a client does to its request, by id; what went wrong with it, or nothing."""


async def cancel(system: System, effort: Effort) -> Measurement:
    """POST at the last frontend, the stream is at the first; one at a time, on an idle system."""
    async with _canceller(system) as act:
        return await _trials(system, effort, act)


async def cancel_busy(system: System, effort: Effort) -> Measurement:
    """The same while 64 unpaced streams keep the machine busy."""
    async with _busy(system) as cores, _canceller(system) as act:
        found = await _trials(system, effort, act)
    found.figures |= cores
    return found


async def disconnect(system: System, effort: Effort) -> Measurement:
    """A client that goes away while nothing comes; one at a time, on an idle system."""
    return await _trials(system, effort, _leave)


async def disconnect_slow(system: System, effort: Effort) -> Measurement:
    """… while a token comes every second."""
    return await _trials(system, effort, _leave, _SLOWLY_PER_SEC)


async def disconnect_fast(system: System, effort: Effort) -> Measurement:
    """… while a token comes every 10 ms."""
    return await _trials(system, effort, _leave, _FAST_PER_SEC)


async def disconnect_busy(system: System, effort: Effort) -> Measurement:
    """… while a token comes every second, and 64 unpaced streams keep the machine busy."""
    async with _busy(system) as cores:
        found = await _trials(system, effort, _leave, _SLOWLY_PER_SEC)
    found.figures |= cores
    return found


async def cancels_at_once(system: System, effort: Effort, count: int) -> Measurement:
    """Open `count` streams, cancel all at the other frontend at once, and measure until each engine is notified."""
    journal = Journal()
    streams: dict[str, Stream] = {}
    rids = [new_request_id("chatcmpl-") for _ in range(count)]
    with journal:
        for start in range(0, count, _OPENING):
            some = {rid: await journal.open(system.urls[0], rid, 0) for rid in rids[start : start + _OPENING]}
            await asyncio.gather(*(stream.first for stream in some.values()))
            streams |= some
        callers = await asyncio.gather(*(Caller.connect(system.urls[-1]) for _ in rids))
        acted_ns = time.monotonic_ns()
        answers = await asyncio.gather(
            *(c.call(encode("POST", f"/v1/requests/{rid}/cancel")) for c, rid in zip(callers, rids, strict=True))
        )
        answered_ns = time.monotonic_ns()
        stops = [await journal.stop_of(rid) for rid in rids]
    for caller in callers:
        caller.close()
    for stream in streams.values():
        stream.close()
    told = [stop for stop in stops if stop is not None]
    spread = Spread.of_ns([stop - acted_ns for stop in told])
    faults = [f"{count - len(told)} engines were not told"] if len(told) < count else []
    if refused := [answer.status for answer in answers if answer.status not in (200, 202)]:
        faults.append(f"{len(refused)} cancels were answered with {refused[0]}")
    figures = {"p50_ms": spread.p50_ms, "all_ms": spread.max_ms, "all_answered_ms": (answered_ns - acted_ns) / 1e6}
    return Measurement(figures, faults)


@dataclass(slots=True)
class Journal:
    """The file in which engines note their ends."""

    path: Path = Path()
    _directory: TemporaryDirectory[str] | None = None

    def __enter__(self) -> Journal:
        self._directory = TemporaryDirectory(prefix="benchmark-")
        self.path = Path(self._directory.name) / "stops"
        self.path.touch()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._directory is not None
        self._directory.cleanup()

    async def open(self, url: str, rid: str, tokens_per_sec: float) -> Stream:
        request = completion(f"journal {self.path} {tokens_per_sec}", x_request_id=rid)
        stream = await Stream.open(url, request)
        stream.begin()
        return stream

    async def stop_of(self, rid: str) -> int | None:
        """Return the clock time at which the engine was notified, or None if that did not happen in time."""
        give_up_at = time.monotonic() + _WAIT_SECS
        while time.monotonic() < give_up_at:
            whole, _, _ = self.path.read_text().rpartition("\n")  # the last line may only be half there
            noted = dict(line.split() for line in whole.splitlines())
            if rid in noted:
                return int(noted[rid])
            await asyncio.sleep(_POLL_SECS)
        return None


async def _trials(system: System, effort: Effort, act: Act, tokens_per_sec: float = 0.0) -> Measurement:
    delays_ns: list[int] = []
    faults: list[str] = []
    give_up_at = time.monotonic() + _AT_MOST_SECS
    with Journal() as journal:
        while len(delays_ns) + len(faults) < effort.trials and time.monotonic() < give_up_at:
            rid = new_request_id("chatcmpl-")
            stream = await journal.open(system.urls[0], rid, tokens_per_sec)
            async with asyncio.timeout(_WAIT_SECS):
                await stream.first
                await asyncio.sleep(_PAUSE_SECS)
                acted_ns = time.monotonic_ns()
                fault = await act(stream, rid)
            stopped_ns = await journal.stop_of(rid)
            stream.close()
            if fault or stopped_ns is None:
                faults.append(fault or f"the engine of {rid} was not notified within {_WAIT_SECS:g} s")
            else:
                delays_ns.append(stopped_ns - acted_ns)
    spread = Spread.of_ns(delays_ns)
    figures = {"p50_ms": spread.p50_ms, "p99_ms": spread.p99_ms, "max_ms": spread.max_ms, "trials": len(delays_ns)}
    return Measurement(figures, faults, {"delays_ns": delays_ns})


@asynccontextmanager
async def _canceller(system: System) -> AsyncIterator[Act]:
    caller = await Caller.connect(system.urls[-1])

    async def act(stream: Stream, rid: str) -> str:
        answer = await caller.call(encode("POST", f"/v1/requests/{rid}/cancel"))
        await stream.ended
        return "" if answer.status in (200, 202) else f"a cancel was answered with {answer.status}"

    yield act
    caller.close()


async def _leave(stream: Stream, rid: str) -> str:
    stream.close()
    return ""


@asynccontextmanager
async def _busy(system: System) -> AsyncIterator[dict[str, float]]:
    """A load as large as the machine takes; how much of a core each part had meanwhile is told after the block."""
    request = completion(f"unpaced {_BUSY_TOKENS}").decode("latin-1")
    plan = Plan(system.urls, request, _BUSY_STREAMS, _WARM_SECS, _AT_MOST_SECS * 2, _BUSY_TOKENS)
    cores: dict[str, float] = {}
    async with generate(plan) as load:
        await asyncio.sleep(_WARM_SECS)
        accountant = Accountant({**system.pids, GENERATOR: [load.pid]}, system.redis_url)
        before = accountant.now()
        yield cores
        cores |= Bill.between(before, accountant.now()).cores()
        accountant.close()
