"""One Redis server with an append-only file: it is stopped, killed, emptied, and restored from an older snapshot."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.bench import Bench
from tests.chaos.links import Links
from tests.chaos.soak.answered_errors import AnsweredErrors
from tests.chaos.soak.deployment import DURABLE, Deployment
from tests.chaos.soak.fault import Fault, Struck
from tests.chaos.soak.link_faults import LinkFaults
from tests.chaos.soak.operator import operator
from tests.chaos.soak.refusals import Refusals
from tests.chaos.soak.snapshot import AOF, roll_back


class Server(Deployment):
    def __init__(self) -> None:
        self._redis = EmbeddedRedis(port=0, config=DURABLE)
        self._dice = random.Random()

    @property
    def url(self) -> str:
        return self._redis.url

    def primaries(self) -> Sequence[EmbeddedRedis]:
        return [self._redis]

    async def open_links(self) -> Links:
        return await Links.to_one(self.url)

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._redis:
            yield

    def faults(self, bench: Bench, dice: random.Random) -> list[Fault]:
        self._dice = dice
        return [
            *LinkFaults(bench, dice).faults(),
            *AnsweredErrors(bench, self.primaries, dice).faults(),
            *Refusals(self.primaries, dice).faults(),
            Fault("redis stop", self._stop),
            Fault("redis kill", self._kill),
            Fault("redis from a snapshot", self._from_a_snapshot, loses_data=True),
            Fault("redis empty", self._empty, loses_data=True),
            Fault("redis flushed", self._flushed, loses_data=True),
        ]

    async def _stop(self) -> Struck:
        self._redis.freeze()
        secs = await self._wait(0.2, 6.0)
        self._redis.thaw()
        return Struck(f"{secs:.1f} s")

    async def _kill(self) -> Struck:
        await asyncio.to_thread(self._redis.kill)
        secs = await self._wait(0.0, 4.0)
        await asyncio.to_thread(self._redis.start)
        return Struck(f"{secs:.1f} s")

    async def _from_a_snapshot(self) -> Struck:
        secs = self._dice.uniform(0.3, 4.0)
        await roll_back(self._redis, secs)
        return Struck(f"{secs:.1f} s older")

    async def _empty(self) -> Struck:
        await asyncio.to_thread(self._redis.kill)
        shutil.rmtree(self._redis.directory / AOF)
        secs = await self._wait(0.0, 3.0)
        await asyncio.to_thread(self._redis.start)
        return Struck(f"{secs:.1f} s")

    async def _flushed(self) -> Struck:
        with operator(self._redis) as command:
            command("FLUSHALL")
        return Struck("all")

    async def _wait(self, low: float, high: float) -> float:
        secs = self._dice.uniform(low, high)
        await asyncio.sleep(secs)
        return secs
