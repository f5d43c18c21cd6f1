"""Measure what `track` costs beside a plain StreamingResponse: `python -m benchmarks.track`.

Both stream the same events from one process, through the same ASGI interface, without a server and a socket. Redis runs
beside it. The CPU time is that of this process; that of Redis is told apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import orjson
import uvloop
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

import lifecycle
from lifecycle.fastapi.run_response import RunResponse
from lifecycle.local.embedded_redis import EmbeddedRedis

_REPEATS = 5
_EVENTS, _REQUESTS, _STREAMS, _PACED_EVENTS = 20_000, 1_000, 100, 50
_PACE_SECS = 0.02
_EVENT = {"step": 1, "thought": "the quick brown fox"}


class Cost(NamedTuple):
    """Hold the times of one event or request, in microseconds."""

    wall_us: float
    cpu_us: float
    redis_us: float


Respond = Callable[[AsyncIterator[Any]], Awaitable[Response]]


async def source(events: int, pause_secs: float = 0.0) -> AsyncIterator[Any]:
    """Yield so many events."""
    for _ in range(events):
        if pause_secs:
            await asyncio.sleep(pause_secs)
        yield _EVENT


async def plain(events: AsyncIterator[Any]) -> Response:
    """Answer with a plain StreamingResponse."""

    async def lines() -> AsyncIterator[bytes]:
        async for event in events:
            yield orjson.dumps(event) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def answer(respond: Respond, events: AsyncIterator[Any]) -> None:
    """Produce one answer, and drop it as a server without a client would."""
    response = await respond(events)
    done = asyncio.Event()

    async def receive() -> Message:
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            done.set()

    await response({"type": "http", "method": "POST", "asgi": {"spec_version": "2.3"}}, receive, send)


async def redis_secs(tracker: lifecycle.Tracker) -> float:
    """Return the CPU time that Redis has used."""
    info = (await tracker._core.store.command("INFO", "cpu")).decode()
    found = dict(line.split(":") for line in info.splitlines() if line.startswith("used_cpu_"))
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


async def measured(tracker: lifecycle.Tracker, count: int, work: Callable[[], Awaitable[Any]]) -> Cost:
    """Return what one of `count` took."""
    redis, wall, cpu = await redis_secs(tracker), time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(*(secs / count * 1e6 for secs in (wall, cpu, await redis_secs(tracker) - redis)))


async def costs(tracker: lifecycle.Tracker, respond: Respond) -> dict[str, Cost]:
    """Return the costs of one way to answer, by what was measured: the best of several repeats."""

    async def requests() -> None:
        for _ in range(_REQUESTS):
            await answer(respond, source(1))

    async def streams() -> None:
        await asyncio.gather(*(answer(respond, source(_PACED_EVENTS, _PACE_SECS)) for _ in range(_STREAMS)))

    works: dict[str, tuple[int, Callable[[], Awaitable[Any]]]] = {
        "a request of one event": (_REQUESTS, requests),
        "an event, unpaced": (_EVENTS, lambda: answer(respond, source(_EVENTS))),
        f"an event, {_STREAMS} streams of {1 / _PACE_SECS:g}/s": (_STREAMS * _PACED_EVENTS, streams),
    }
    found = {}
    for name, (count, work) in works.items():
        repeats = [await measured(tracker, count, work) for _ in range(_REPEATS)]
        found[name] = min(repeats, key=lambda cost: cost.cpu_us)
    return found


async def main() -> None:
    """Print a table."""
    with EmbeddedRedis() as server:
        async with lifecycle.Tracker.connect(redis_url=server.url, endpoint="bench") as tracker:

            async def tracked(events: AsyncIterator[Any]) -> Response:
                run = await tracker.track(events, model="bench")
                return RunResponse(run, lines=True, slow_consumer_secs=60.0)

            without, with_it = await costs(tracker, plain), await costs(tracker, tracked)
    heads = ("measured", "plain: CPU-µs", "tracked: CPU-µs", "of Redis", "plain: wall-µs", "tracked: wall-µs")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, cost in with_it.items():
        base = without[name]
        print(
            f"| {name} | {base.cpu_us:.1f} | {cost.cpu_us:.1f} | {cost.redis_us:.1f} "
            f"| {base.wall_us:.1f} | {cost.wall_us:.1f} |"
        )


if __name__ == "__main__":
    uvloop.run(main())
