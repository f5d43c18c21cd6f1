"""Break the links of a replica to Redis, by their fault proxies: all of them, or several replicas' to one server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from tests.chaos.bench import Bench
from tests.chaos.proxy import FaultProxy, Then, script
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
    """`ports()`: those of the servers, of several, to which single links are broken."""

    def __init__(self, bench: Bench, dice: random.Random, ports: Callable[[], Sequence[int]] | None = None) -> None:
        self._bench = bench
        self._dice = dice
        self._ports = ports

    def faults(self) -> list[Fault]:
        single = [
            Fault("one link cut", self._one_cut),
            Fault("one link half-open", self._one_blackhole),
            Fault("one link slow", self._one_delayed),
        ]
        return [
            Fault("link cut", self._cut),
            Fault("link half-open", self._blackhole),
            Fault("link slow", self._delay),
            Fault("link reset", self._reset),
            Fault("reply reset", self._reply_reset),
            Fault("reply swallowed", self._reply_swallowed),
            *(single if self._ports is not None else ()),
        ]

    def _all(self) -> list[Process]:
        return [*self._bench.workers, *self._bench.frontends]

    def _any(self) -> Process:
        return self._dice.choice(self._all())

    # All links of one replica

    async def _cut(self) -> Struck:
        victim = self._any()
        self._bench.links[victim].cut()
        return await self._mended(victim)

    async def _blackhole(self) -> Struck:
        victim = self._any()
        self._bench.links[victim].blackhole()
        return await self._mended(victim)

    async def _delay(self) -> Struck:
        victim = self._any()
        self._bench.links[victim].delay(self._delay_secs())
        return await self._mended(victim)

    async def _mended(self, victim: Process) -> Struck:
        secs = await self._broken()
        self._bench.links[victim].restore()
        return Struck(f"{victim.log.stem}, {secs:.1f} s")

    async def _broken(self) -> float:
        secs = self._dice.uniform(0.2, 5.0)
        await asyncio.sleep(secs)
        return secs

    def _delay_secs(self) -> float:
        return self._dice.uniform(0.02, 0.2)

    async def _reset(self) -> Struck:
        victim = self._any()
        self._bench.links[victim].reset()
        return Struck(victim.log.stem)

    # The links of some replicas to one server

    async def _one_cut(self) -> Struck:
        return await self._one(FaultProxy.cut)

    async def _one_blackhole(self) -> Struck:
        return await self._one(FaultProxy.blackhole)

    async def _one_delayed(self) -> Struck:
        def delay(link: FaultProxy) -> None:
            link.delay_secs = self._delay_secs()

        return await self._one(delay)

    async def _one(self, broken: Callable[[FaultProxy], None]) -> Struck:
        assert self._ports is not None
        port, replicas = self._dice.choice(self._ports()), self._all()
        victims = self._dice.sample(replicas, self._dice.randint(1, len(replicas) // 2))
        links = [self._bench.links[victim].to(port) for victim in victims]
        for link in links:
            broken(link)
        secs = await self._broken()
        for link in links:
            link.restore()
        names = ", ".join(victim.log.stem for victim in victims)
        return Struck(f"port {port} and {names}, {secs:.1f} s")

    # Replies

    async def _reply_reset(self) -> Struck:
        return await self._lose_reply(Then.RESET)

    async def _reply_swallowed(self) -> Struck:
        return await self._lose_reply(Then.SWALLOW)

    async def _lose_reply(self, then: Then) -> Struck:
        victim, name = self._any(), self._dice.choice(_SCRIPTS)
        links = self._bench.links[victim]
        rule = links.on_request(script(name), then)
        await asyncio.sleep(self._dice.uniform(1.0, 2.0))  # perhaps it never calls that one
        fired = rule.spent
        links.forget(rule)
        return Struck(f"{victim.log.stem}, {name}{'' if fired else ' (not called)'}")
