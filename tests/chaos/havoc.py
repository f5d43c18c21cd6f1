"""Random faults for the soak, one at a time, each undone: which one comes next is decided by a seed alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.bench import Bench
from tests.chaos.proxy import Then, script
from tests.cluster import Process

_SCRIPTS = (
    "admit",
    "start",
    "append",
    "finish",
    "cancel",
    "attach",
    "disconnect",
    "heartbeat",
    "reconcile_shard",
    "reap",
    "sweep",
    "read",
)


Served = tuple[str, dict[str, float]]
"""An engine, and the settings of a worker that runs it."""


class Havoc:
    """`strike()` breaks one thing and mends it; what heals afterwards is the cluster's own affair."""

    def __init__(self, bench: Bench, redis: EmbeddedRedis, seed: int, models: dict[str, Served]) -> None:
        """`models`: how a worker of each is started."""
        self._bench = bench
        self._redis = redis
        self._random = random.Random(f"havoc {seed}")
        self._models = models
        self._model_of: dict[Process, str] = {}
        self._faults: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("kill worker", self._kill_worker),
            ("kill frontend", self._kill_frontend),
            ("stop worker", self._freeze_worker),
            ("stop frontend", self._freeze_frontend),
            ("term worker", self._term_worker),
            ("term frontend", self._term_frontend),
            ("cut", self._cut),
            ("blackhole", self._blackhole),
            ("delay", self._delay),
            ("reset", self._reset),
            ("reply reset", self._reply_reset),
            ("reply swallowed", self._reply_swallowed),
            ("client kill normal", self._kill_clients),
            ("client kill pubsub", self._kill_subscribers),
            ("client pause", self._pause),
            ("script flush", self._flush_scripts),
            ("redis stop", self._freeze_redis),
            ("redis kill, aof", self._kill_redis),
        )

    async def add_worker(self, model: str) -> None:
        engine, settings = self._models[model]
        self._model_of[await self._bench.worker(model, engine, **settings)] = model

    async def strike(self) -> tuple[str, str]:
        """The kind of the fault, and on whom."""
        kind, fault = self._random.choice(self._faults)
        return kind, await fault()

    # Processes

    async def _kill_worker(self) -> str:
        victim = self._random.choice(self._bench.workers)
        await self._bench.kill(victim)
        await self.add_worker(self._model_of.pop(victim))
        return victim.log.stem

    async def _kill_frontend(self) -> str:
        victim = self._random.choice(self._bench.frontends)
        self._bench.forget(victim)  # before its clients can notice
        await victim.kill()
        await self._bench.frontend()
        return victim.log.stem

    async def _freeze_worker(self) -> str:
        return await self._freeze(self._random.choice(self._bench.workers))

    async def _freeze_frontend(self) -> str:
        return await self._freeze(self._random.choice(self._bench.frontends))

    async def _freeze(self, victim: Process) -> str:
        self._bench.freeze(victim)
        secs = await self._wait(0.2, 5.0)
        self._bench.thaw(victim)
        return f"{victim.log.stem}, {secs:.1f} s"

    async def _term_worker(self) -> str:
        victim = self._random.choice(self._bench.workers)
        await self.add_worker(self._model_of.pop(victim))
        return await self._term(victim)

    async def _term_frontend(self) -> str:
        victim = self._random.choice(self._bench.frontends)
        await self._bench.frontend()
        return await self._term(victim)

    async def _term(self, victim: Process) -> str:
        self._bench.forget(victim)
        status = await victim.terminate(30.0)
        if status != 0:
            self._bench.invariants.note(f"{victim.log.stem} ended on SIGTERM with status {status}")
        return victim.log.stem

    # Links

    def _any(self) -> Process:
        return self._random.choice([*self._bench.workers, *self._bench.frontends])

    async def _cut(self) -> str:
        victim = self._any()
        self._bench.link(victim).cut()
        return await self._mended(victim)

    async def _blackhole(self) -> str:
        victim = self._any()
        self._bench.link(victim).blackhole()
        return await self._mended(victim)

    async def _delay(self) -> str:
        victim = self._any()
        self._bench.link(victim).delay_secs = self._random.uniform(0.02, 0.2)
        return await self._mended(victim)

    async def _mended(self, victim: Process) -> str:
        secs = await self._wait(0.2, 5.0)
        self._bench.link(victim).restore()
        return f"{victim.log.stem}, {secs:.1f} s"

    async def _reset(self) -> str:
        victim = self._any()
        self._bench.link(victim).reset()
        return victim.log.stem

    async def _reply_reset(self) -> str:
        return await self._lose_reply(Then.RESET)

    async def _reply_swallowed(self) -> str:
        return await self._lose_reply(Then.SWALLOW)

    async def _lose_reply(self, then: Then) -> str:
        victim, name = self._any(), self._random.choice(_SCRIPTS)
        link = self._bench.link(victim)
        rule = link.on_request(script(name), then)
        await self._wait(1.0, 2.0)  # perhaps it never calls that one
        fired = rule.spent
        link.requests.remove(rule)
        return f"{victim.log.stem}, {name}{'' if fired else ' (not called)'}"

    # Redis

    async def _kill_clients(self) -> str:
        await self._bench.execute("CLIENT", "KILL", "TYPE", "normal")
        return "all"

    async def _kill_subscribers(self) -> str:
        await self._bench.execute("CLIENT", "KILL", "TYPE", "pubsub")
        return "all"

    async def _pause(self) -> str:
        milliseconds = self._random.randint(200, 3000)
        await self._bench.execute("CLIENT", "PAUSE", milliseconds, "ALL")
        await asyncio.sleep(milliseconds / 1000)
        return f"{milliseconds} ms"

    async def _flush_scripts(self) -> str:
        await self._bench.execute("SCRIPT", "FLUSH")
        return "all"

    async def _freeze_redis(self) -> str:
        self._redis.freeze()
        secs = await self._wait(0.2, 6.0)
        self._redis.thaw()
        return f"{secs:.1f} s"

    async def _kill_redis(self) -> str:
        await asyncio.to_thread(self._redis.kill)
        secs = await self._wait(0.0, 4.0)
        await asyncio.to_thread(self._redis.start)
        return f"{secs:.1f} s"

    async def _wait(self, low: float, high: float) -> float:
        secs = self._random.uniform(low, high)
        await asyncio.sleep(secs)
        return secs
