"""A primary and a replica behind three Sentinels: failed over, killed, frozen, and with a replica that lags.

Replication is asynchronous, so each of these may lose the last writes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.bench import Bench
from tests.chaos.links import Links
from tests.chaos.soak.answered_errors import AnsweredErrors
from tests.chaos.soak.deployment import DURABLE, Deployment
from tests.chaos.soak.fault import Fault, Struck
from tests.chaos.soak.lag import lagging
from tests.chaos.soak.link_faults import LinkFaults
from tests.chaos.soak.refusals import Refusals
from tests.chaos.soak.snapshot import roll_back
from tests.sentinel_setup import SentinelSetup

_ANSWERED_BY_A_FAILOVER = ("MISCONF", "BUSY", "CLIENT PAUSE", "NOAUTH", "READONLY", "MASTERDOWN")
"""A Sentinel takes a primary that does not answer PING with PONG, or follows another, for one that is down."""

_NEEDED_BY_SENTINELS = ("PING",)
_DOWN_AFTER_MS = 1500
"""So long that a busy machine alone causes no failover, which could lose writes while no fault allows that."""


class Sentinels(Deployment):
    def __init__(self) -> None:
        self._setup = SentinelSetup(config=DURABLE, down_after_ms=_DOWN_AFTER_MS)
        self._dice = random.Random()

    @property
    def url(self) -> str:
        return self._setup.url

    def primaries(self) -> Sequence[EmbeddedRedis]:
        return [self._setup.primary]

    async def open_links(self) -> Links:
        setup = self._setup
        return await Links.to_many(self.url, [s.port for s in setup.servers], [s.port for s in setup.sentinels])

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._setup:
            yield

    def faults(self, bench: Bench, dice: random.Random) -> list[Fault]:
        self._dice = dice
        return [
            *Refusals(self.primaries, dice, _NEEDED_BY_SENTINELS).faults(but=_ANSWERED_BY_A_FAILOVER),
            Fault("failover", self._failover, loses_data=True),
            Fault("primary killed", self._killed, loses_data=True),
            Fault("primary frozen and thawed", self._frozen, loses_data=True, expires_leases=True),
            Fault("primary frozen briefly", self._frozen_briefly, loses_data=True),
            Fault("replica promoted that lags", self._lagging, loses_data=True),
            Fault("primary from a snapshot", self._from_a_snapshot, loses_data=True),
            Fault("sentinel killed", self._sentinel_killed),
            *LinkFaults(bench, dice, self._ports).faults(),
            *AnsweredErrors(bench, self.primaries, dice).faults(also=_ANSWERED_BY_A_FAILOVER),
        ]

    def _ports(self) -> list[int]:
        """Return the ports to which single links are broken, most often the primary's."""
        return [self._setup.primary.port] * 3 + [sentinel.port for sentinel in self._setup.sentinels]

    async def _failover(self) -> Struck:
        await self._setup.fail_over()
        return Struck(f"to port {self._setup.primary.port}")

    async def _killed(self) -> Struck:
        victim = self._setup.primary
        await asyncio.to_thread(victim.kill)
        await self._replaced(victim)
        return Struck(f"port {victim.port}")

    async def _lagging(self) -> Struck:
        victim = self._setup.primary
        with lagging(self._setup.replica, victim):
            secs = self._dice.uniform(0.2, 2.0)
            await asyncio.sleep(secs)
            await asyncio.to_thread(victim.kill)
            await self._setup.agreed()
        await asyncio.to_thread(victim.start)
        await self._setup.rejoined()
        return Struck(f"port {victim.port}, {secs:.1f} s behind")

    async def _from_a_snapshot(self) -> Struck:
        """Too briefly away for a failover, as a rule: the replica follows it back."""
        victim, secs = self._setup.primary, self._dice.uniform(0.3, 4.0)
        await roll_back(victim, secs)
        await self._setup.settled()
        return Struck(f"port {victim.port}, {secs:.1f} s older")

    async def _frozen(self) -> Struck:
        victim = self._setup.primary
        victim.freeze()
        try:
            await self._setup.agreed()
        finally:
            victim.thaw()
        await self._setup.rejoined()
        return Struck(f"port {victim.port}")

    async def _frozen_briefly(self) -> Struck:
        """Too briefly for a failover."""
        victim = self._setup.primary
        victim.freeze()
        secs = self._dice.uniform(0.1, 0.4)
        await asyncio.sleep(secs)
        victim.thaw()
        await self._setup.settled()
        return Struck(f"{secs:.1f} s")

    async def _sentinel_killed(self) -> Struck:
        victim = self._dice.choice(self._setup.sentinels)
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(self._dice.uniform(0.2, 2.0))
        await asyncio.to_thread(victim.start)
        await self._setup.settled()
        return Struck(f"port {victim.port}")

    async def _replaced(self, victim: EmbeddedRedis) -> None:
        await self._setup.agreed()
        await asyncio.to_thread(victim.start)
        await self._setup.rejoined()
