"""What looking at the dashboard costs: `python -m benchmarks.dashboard`. CPU of the frontend and of Redis, per second.

Viewers read `/v1/overview` as the page does. Nobody works on the requests inflight, so all there is, is looking.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop

from benchmarks.account import Accountant, Bill
from benchmarks.system import Layout, Lifecycle, System, running
from lifecycle import tasks

_SETTLE_SECS = 3.0
_SEARCHED = "?q=nothing+is+called+so"  # looks at all that are inflight, and finds none


@dataclass(frozen=True, slots=True)
class Scene:
    inflight: int
    viewers: int
    query: str = ""

    @property
    def name(self) -> str:
        return f"{self.inflight:,} | {self.viewers}{' searching' if self.query else ''}"


SCENES = [Scene(inflight, viewers) for inflight in (0, 10_000) for viewers in (0, 1, 10)]
SCENES += [Scene(10_000, 1, _SEARCHED)]


async def main(secs: float) -> None:
    system = Lifecycle()
    async with running(system, Layout(frontends=1, workers=1)):
        print("| inflight | viewers | frontend ms/s | Redis ms/s | bytes/s to each viewer |")
        print("|---|---|---|---|---|")
        for inflight in sorted({scene.inflight for scene in SCENES}):
            async with system.parked(inflight):
                for scene in (scene for scene in SCENES if scene.inflight == inflight):
                    bill, received = await _look(system, scene, secs)
                    frontend, redis = (bill.cpu_secs[part] * 1000 / bill.secs for part in ("frontend", "redis"))
                    each = received / max(1, scene.viewers) / bill.secs
                    print(f"| {scene.name} | {frontend:.1f} | {redis:.1f} | {each:,.0f} |", flush=True)


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
