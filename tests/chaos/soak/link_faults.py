"""Break the link of one replica to Redis, by its fault proxy."""

from __future__ import annotations

import asyncio
import random

from tests.chaos.bench import Bench
from tests.chaos.proxy import Then, script
from tests.chaos.soak.fault import Fault, Struck
from tests.cluster import Process

_SCRIPTS = (
    "admit",
    "take",
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


class LinkFaults:
    """For a deployment of one server, whose replicas each have a proxy."""

    def __init__(self, bench: Bench, dice: random.Random) -> None:
        self._bench = bench
        self._dice = dice

    def faults(self) -> list[Fault]:
        return [
            Fault("link cut", self._cut),
            Fault("link half-open", self._blackhole),
            Fault("link slow", self._delay),
            Fault("link reset", self._reset),
            Fault("reply reset", self._reply_reset),
            Fault("reply swallowed", self._reply_swallowed),
        ]

    def _any(self) -> Process:
        return self._dice.choice([*self._bench.workers, *self._bench.frontends])

    async def _cut(self) -> Struck:
        victim = self._any()
        self._bench.link(victim).cut()
        return await self._mended(victim)

    async def _blackhole(self) -> Struck:
        victim = self._any()
        self._bench.link(victim).blackhole()
        return await self._mended(victim)

    async def _delay(self) -> Struck:
        victim = self._any()
        self._bench.link(victim).delay_secs = self._dice.uniform(0.02, 0.2)
        return await self._mended(victim)

    async def _mended(self, victim: Process) -> Struck:
        secs = self._dice.uniform(0.2, 5.0)
        await asyncio.sleep(secs)
        self._bench.link(victim).restore()
        return Struck(f"{victim.log.stem}, {secs:.1f} s")

    async def _reset(self) -> Struck:
        victim = self._any()
        self._bench.link(victim).reset()
        return Struck(victim.log.stem)

    async def _reply_reset(self) -> Struck:
        return await self._lose_reply(Then.RESET)

    async def _reply_swallowed(self) -> Struck:
        return await self._lose_reply(Then.SWALLOW)

    async def _lose_reply(self, then: Then) -> Struck:
        victim, name = self._any(), self._dice.choice(_SCRIPTS)
        link = self._bench.link(victim)
        rule = link.on_request(script(name), then)
        await asyncio.sleep(self._dice.uniform(1.0, 2.0))  # perhaps it never calls that one
        fired = rule.spent
        link.requests.remove(rule)
        return Struck(f"{victim.log.stem}, {name}{'' if fired else ' (not called)'}")
