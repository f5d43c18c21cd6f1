"""How long an engine runs on for nobody: from a client's act to the engine's own note of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.caller import Caller, encode
from benchmarks.stream import Stream, Tally, completion
from lifecycle.ids import new_request_id

_PATIENCE_SECS = 10.0
_POLL_SECS = 0.005
_PAUSE_SECS = 0.005  # the system is idle before each trial

Probe = Callable[[Sequence[str], int], Awaitable[tuple[list[int], list[str]]]]
"""Called with the frontends' urls and the number of trials; delays in nanoseconds, and what went wrong."""


async def cancel_to_stop(urls: Sequence[str], trials: int) -> tuple[list[int], list[str]]:
    """The stream is at the first frontend, the cancel comes to the last."""
    caller = await Caller.connect(urls[-1])

    async def act(stream: Stream, rid: str) -> str:
        answer = await caller.call(encode("POST", f"/v1/requests/{rid}/cancel"))
        await stream.ended
        return "" if answer.status in (200, 202) else f"a cancel was answered with {answer.status}"

    try:
        return await _trials(urls[0], trials, act)
    finally:
        caller.close()


async def disconnect_to_stop(urls: Sequence[str], trials: int) -> tuple[list[int], list[str]]:
    async def act(stream: Stream, rid: str) -> str:
        stream.close()
        return ""

    return await _trials(urls[0], trials, act)


async def _trials(url: str, trials: int, act: Callable[[Stream, str], Awaitable[str]]) -> tuple[list[int], list[str]]:
    delays_ns: list[int] = []
    faults: list[str] = []
    with TemporaryDirectory(prefix="benchmark-") as directory:
        journal = Path(directory) / "stops"
        journal.touch()
        for _ in range(trials):
            rid = new_request_id("chatcmpl")
            stream = await Stream.open(url, completion(f"journal {journal}", x_request_id=rid), Tally())
            stream.begin()
            async with asyncio.timeout(_PATIENCE_SECS):
                await stream.first
                await asyncio.sleep(_PAUSE_SECS)
                acted_ns = time.monotonic_ns()
                fault = await act(stream, rid)
            stopped_ns = await _stop_of(rid, journal)
            stream.close()
            if fault:
                faults.append(fault)
            if stopped_ns is None:
                faults.append(f"the engine of {rid} was not told within {_PATIENCE_SECS:g} s")
            else:
                delays_ns.append(stopped_ns - acted_ns)
    return delays_ns, faults


async def _stop_of(rid: str, journal: Path) -> int | None:
    """The clock at which the engine was told; None when it has not been in time."""
    give_up_at = time.monotonic() + _PATIENCE_SECS
    while time.monotonic() < give_up_at:
        await asyncio.sleep(_POLL_SECS)
        if rid in (noted := _noted(journal)):
            return noted[rid]
    return None


def _noted(journal: Path) -> dict[str, int]:
    return {rid: int(clock_ns) for rid, clock_ns in map(str.split, journal.read_text().splitlines())}
