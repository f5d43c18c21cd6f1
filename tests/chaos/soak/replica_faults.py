"""Kill, stop and end replicas."""

from __future__ import annotations

import asyncio
import random

from tests.chaos.bench import Bench
from tests.chaos.soak.fault import Fault, Struck
from tests.cluster import Process

_ENDS_WITHIN_SECS = 30.0

Served = tuple[str, dict[str, float]]
"""An engine, and the settings of a worker that runs it."""


class ReplicaFaults:
    """Keep as many workers of each model, and as many frontends, as there were."""

    def __init__(self, bench: Bench, dice: random.Random, models: dict[str, Served], slowness: float) -> None:
        """`models`: how a worker of each is started."""
        self._bench = bench
        self._dice = dice
        self._models = models
        self._model_of: dict[Process, str] = {}
        self._ends_within_secs = _ENDS_WITHIN_SECS * slowness

    async def add_worker(self, model: str) -> None:
        engine, settings = self._models[model]
        self._model_of[await self._bench.worker(model, engine, **settings)] = model

    def serving(self, model: str) -> list[Process]:
        """Return the workers of a model that run now."""
        return [worker for worker in self._bench.workers if self._model_of.get(worker) == model]

    def faults(self) -> list[Fault]:
        return [
            Fault("kill worker", self._kill_worker),
            Fault("kill frontend", self._kill_frontend),
            Fault("stop worker", self._stop_worker),
            Fault("stop frontend", self._stop_frontend),
            Fault("term worker", self._term_worker),
            Fault("term frontend", self._term_frontend),
        ]

    async def _kill_worker(self) -> Struck:
        victim = self._dice.choice(self._bench.workers)
        await self._bench.kill(victim)
        await self.add_worker(self._model_of.pop(victim))
        return Struck(victim.log.stem)

    async def _kill_frontend(self) -> Struck:
        victim = self._dice.choice(self._bench.frontends)
        self._bench.forget(victim)  # before its clients can notice
        await victim.kill()
        await self._bench.frontend()
        return Struck(victim.log.stem, (victim.url,))

    async def _stop_worker(self) -> Struck:
        return await self._stop(self._dice.choice(self._bench.workers))

    async def _stop_frontend(self) -> Struck:
        return await self._stop(self._dice.choice(self._bench.frontends))

    async def _stop(self, victim: Process) -> Struck:
        self._bench.freeze(victim)
        secs = self._dice.uniform(0.2, 5.0)
        await asyncio.sleep(secs)
        self._bench.thaw(victim)
        return Struck(f"{victim.log.stem}, {secs:.1f} s")

    async def _term_worker(self) -> Struck:
        victim = self._dice.choice(self._bench.workers)
        await self.add_worker(self._model_of.pop(victim))
        return await self._term(victim)

    async def _term_frontend(self) -> Struck:
        victim = self._dice.choice(self._bench.frontends)
        await self._bench.frontend()
        return await self._term(victim)

    async def _term(self, victim: Process) -> Struck:
        self._bench.forget(victim)
        status = await victim.terminate(self._ends_within_secs)
        if status != 0:
            self._bench.invariants.note(f"{victim.log.stem} ended on SIGTERM with status {status}")
        return Struck(victim.log.stem, (victim.url,))
