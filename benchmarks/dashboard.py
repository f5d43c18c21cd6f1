"""Measure the CPU time a second that viewers of the dashboard cost: `python -m benchmarks.dashboard`.

The figures are those of the frontend and of Redis. Viewers read `/v1/overview` as the page does. No worker runs the
requests that wait, so that the viewers are the only load. Requests that stream cost something themselves: compare them
with the row without a viewer.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop

from benchmarks.account import Accountant, Bill
from benchmarks.stream import Stream, completion
from benchmarks.system import Layout, Lifecycle, System, running
from lifecycle.aio import tasks

_SETTLE_SECS = 3.0
_LONG, _TOKENS_PER_SEC = 1_000_000, 20
_SEARCHED = "?q=nothing+is+called+so"  # examines all requests inflight, and finds none


@dataclass(frozen=True, slots=True)
class Scene:
    viewers: int
    query: str = ""

    @property
    def name(self) -> str:
        return f"{self.viewers}{', searching' if self.query else ''}"


SCENES = (Scene(0), Scene(1), Scene(10), Scene(1, _SEARCHED))


async def main(secs: float) -> None:
    system = Lifecycle()
    async with running(system, Layout(frontends=1, workers=1)):
        print("| inflight | viewers | frontend ms/s | Redis ms/s | bytes/s to each viewer |")
        print("|---|---|---|---|---|")
        for name, inflight in (
            ("0", nullcontext()),
            ("50 streaming", _streaming(system.urls[0], 50)),
            ("10,000 waiting", system.parked(10_000)),
        ):
            async with inflight:
                for scene in SCENES:
                    bill, received = await _look(system, scene, secs)
                    frontend, redis = (bill.cpu_secs[part] * 1000 / bill.secs for part in ("frontend", "redis"))
                    each = received / max(1, scene.viewers) / bill.secs
                    print(f"| {name} | {scene.name} | {frontend:.1f} | {redis:.1f} | {each:,.0f} |", flush=True)


@asynccontextmanager
async def _streaming(url: str, count: int) -> AsyncIterator[None]:
    request = completion(f"paced {_LONG} {_TOKENS_PER_SEC}")
    streams = [await Stream.open(url, request) for _ in range(count)]
    try:
        for stream in streams:
            stream.begin()
        await asyncio.gather(*(stream.first for stream in streams))
        yield
    finally:
        for stream in streams:
            stream.close()


async def _look(system: System, scene: Scene, secs: float) -> tuple[Bill, int]:
    accountant = Accountant(system.pids, system.redis_url)
    try:
        async with _viewers(system.urls[0], scene) as received:
            await asyncio.sleep(_SETTLE_SECS)
            before, bytes_before = accountant.now(), sum(received)
            await asyncio.sleep(secs)
            return Bill.between(before, accountant.now()), sum(received) - bytes_before
    finally:
        accountant.close()


@asynccontextmanager
async def _viewers(url: str, scene: Scene) -> AsyncIterator[list[int]]:
    """Yields how many bytes each has received so far."""
    received = [0] * scene.viewers
    address = urlsplit(url)

    async def view(index: int) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(f"GET /v1/overview{scene.query} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
            while piece := await reader.read(65536):
                received[index] += len(piece)
        finally:
            writer.close()

    viewing = [asyncio.create_task(view(index)) for index in range(scene.viewers)]
    try:
        yield received
        if any(task.done() for task in viewing):
            raise RuntimeError("a viewer was sent away")
    finally:
        await tasks.end(viewing)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--secs", type=float, default=10.0, help="how long each scene is watched (%(default)s)")
    uvloop.run(main(parser.parse_args().secs))
