"""The load as a workload sees it: N connections, for so many seconds, in a process of their own (`generator`)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

_CONNECT_SECS = 30.0
_GRACE_SECS = 10.0
TAIL_SECS = 0.2  # the load goes on for so long behind the measured seconds


@dataclass(frozen=True, slots=True)
class Plan:
    urls: Sequence[str]  # connections are dealt out to these in turn
    request: str  # as it goes over the wire
    connections: int
    lead_secs: float  # what comes earlier is not measured: the streams are only starting, evenly over most of it
    secs: float
    tokens: int = 0  # that each response should have; 0: the load ends before they do
    pause_secs: float = 0.0  # between a response and the next request on its connection
    text_field: str = "content"  # the field of an event that has the token's text


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a latency."""

    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of_ns(cls, values: Sequence[int]) -> Spread:
        ordered = sorted(values) or [0]
        last = len(ordered) - 1
        return cls(*(ordered[round(last * share)] / 1e6 for share in (0.5, 0.99, 1.0)))

    def figures(self, name: str) -> dict[str, float]:
        return {f"{name}_p50_ms": self.p50_ms, f"{name}_p99_ms": self.p99_ms}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of the measured seconds; faults and errors are those of the whole run."""

    delay: Spread  # from the engine's yield to our socket
    gap: Spread  # between two tokens of a stream
    first_token: Spread  # from the request's sending
    whole: Spread  # from the request's sending to the response's end
    faults: dict[str, int]  # the kinds that occurred
    errors: list[str]  # the first few, in their own words
    progress: list[tuple[int, int, int]] = field(repr=False)  # clock in nanoseconds, tokens and responses until then

    def between(self, begins_ns: int, ends_ns: int) -> tuple[float, float]:
        """Tokens and responses that came between two clocks."""
        began, ended = self._at(begins_ns), self._at(ends_ns)
        return ended[0] - began[0], ended[1] - began[1]

    def _at(self, clock_ns: int) -> tuple[float, float]:
        before = self.progress[0]
        for sample in self.progress:
            if sample[0] >= clock_ns:
                share = (clock_ns - before[0]) / width if (width := sample[0] - before[0]) else 0.0
                share = max(0.0, share)
                return before[1] + (sample[1] - before[1]) * share, before[2] + (sample[2] - before[2]) * share
            before = sample
        return float(before[1]), float(before[2])


class Load:
    """A load under way: `await outcome()` for its end."""

    def __init__(self, process: asyncio.subprocess.Process, plan: Plan) -> None:
        self._process = process
        self._plan = plan

    @property
    def pid(self) -> int:
        return self._process.pid

    async def outcome(self) -> Outcome:
        result = await self._line(self._plan.lead_secs + self._plan.secs + TAIL_SECS + _GRACE_SECS)
        result |= {name: Spread(**result[name]) for name in ("delay", "gap", "first_token", "whole")}
        return Outcome(**result)

    async def connected(self) -> None:
        await self._line(_CONNECT_SECS)

    async def _line(self, timeout_secs: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_secs):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended with status {await self._process.wait()}")
        parsed: dict[str, Any] = orjson.loads(line)
        return parsed


@asynccontextmanager
async def generate(plan: Plan) -> AsyncIterator[Load]:
    """The load runs within the block, and is ended with it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.generator",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(asdict(plan)))
        process.stdin.write_eof()
        load = Load(process, plan)
        await load.connected()
        yield load
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
