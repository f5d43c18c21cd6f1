"""The load generator: N streams in a process of its own, so that its work is nobody else's CPU time.

    python -m benchmarks.load < plan.json        a line when all streams have begun, then a line with the result

`generate(plan)` runs it from a workload.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import uvloop

from benchmarks.stream import Stream, Tally, completion

_PROGRESS_SECS = 0.05
_CONNECTING = 64  # at once
_GRACE_SECS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    urls: Sequence[str]  # streams are dealt out to these in turn
    prompt: str
    streams: int
    tokens: int  # expected of each
    lead_secs: float = 0.0  # tokens that come earlier are not in the delays: the streams are only starting
    timeout_secs: float = 120.0


@dataclass(frozen=True, slots=True)
class Spread:
    """How a latency is distributed."""

    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of_ns(cls, values: Sequence[int]) -> Spread:
        ordered = sorted(values) or [0]
        last = len(ordered) - 1
        return cls(*(ordered[round(last * share)] / 1e6 for share in (0.5, 0.99, 1.0)))


@dataclass(frozen=True, slots=True)
class Outcome:
    tokens: int
    elapsed_secs: float  # from the first request's sending to the last stream's end
    delay: Spread
    first_token: Spread
    faults: dict[str, int]  # the kinds that occurred
    errors: list[str]
    progress: list[tuple[int, int]] = field(repr=False)  # clock in nanoseconds, tokens until then

    def tokens_at(self, clock_ns: int) -> float:
        """How many had come by then, interpolated."""
        before = self.progress[0]
        for sample in self.progress:
            if sample[0] >= clock_ns:
                width = sample[0] - before[0]
                return before[1] + (sample[1] - before[1]) * ((clock_ns - before[0]) / width if width else 0.0)
            before = sample
        return before[1]


class Load:
    """A load under way: `await outcome()` for its end."""

    def __init__(self, process: asyncio.subprocess.Process, plan: Plan) -> None:
        self._process = process
        self._plan = plan

    async def outcome(self) -> Outcome:
        result = await self._line(self._plan.timeout_secs + _GRACE_SECS)
        result |= {name: Spread(**result[name]) for name in ("delay", "first_token")}
        return Outcome(**result)

    async def began(self) -> None:
        await self._line(_GRACE_SECS)

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
        sys.executable, "-m", "benchmarks.load",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(asdict(plan)))
        process.stdin.write_eof()
        load = Load(process, plan)
        await load.began()
        yield load
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _run(plan: Plan) -> Outcome:
    tally, request = Tally(), completion(plan.prompt)
    connecting = asyncio.Semaphore(_CONNECTING)

    async def connect(number: int) -> Stream:
        async with connecting:
            return await Stream.open(plan.urls[number % len(plan.urls)], request, tally)

    streams = await asyncio.gather(*(connect(number) for number in range(plan.streams)))
    began_ns = time.monotonic_ns()
    progress: list[tuple[int, int]] = []
    sampling = asyncio.create_task(_sample(tally, progress))
    for stream in streams:
        stream.begin()
    if plan.lead_secs:
        asyncio.get_running_loop().call_later(plan.lead_secs, tally.forget_delays)
    print(orjson.dumps({"began_ns": began_ns}).decode(), flush=True)
    _, pending = await asyncio.wait([stream.ended for stream in streams], timeout=plan.timeout_secs)
    ended_ns = time.monotonic_ns()
    sampling.cancel()
    progress.append((ended_ns, tally.tokens))
    return Outcome(
        tally.tokens, (ended_ns - began_ns) / 1e9, Spread.of_ns(tally.delays_ns), Spread.of_ns(tally.first_token_ns),
        _faults(tally, plan, len(pending)), tally.errors, progress,
    )  # fmt: skip


def _faults(tally: Tally, plan: Plan, pending: int) -> dict[str, int]:
    found = {
        "gaps": tally.gaps,
        "streams without [DONE]": tally.without_done,
        "refused requests": tally.refused,
        "error frames": tally.error_frames,
        "streams not ended in time": pending,
        "missing tokens": plan.streams * plan.tokens - tally.tokens,
    }
    return {name: number for name, number in found.items() if number}


async def _sample(tally: Tally, progress: list[tuple[int, int]]) -> None:
    while True:
        progress.append((time.monotonic_ns(), tally.tokens))
        await asyncio.sleep(_PROGRESS_SECS)


def main() -> None:
    plan = Plan(**orjson.loads(sys.stdin.buffer.read()))
    outcome = uvloop.run(_run(plan))
    sys.stdout.buffer.write(orjson.dumps(asdict(outcome)) + b"\n")


if __name__ == "__main__":
    main()
