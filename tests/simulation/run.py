"""Simulate one plan, and say what was seen that must not be."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import warnings
from dataclasses import dataclass, field

from lifecycle.aio import tasks
from lifecycle.settings import Settings
from tests.chaos.audit import checker
from tests.chaos.audit.history import History
from tests.simulation.determinism import EPOCH_SECS, deterministic
from tests.simulation.faults import Faults
from tests.simulation.invariants import Invariants
from tests.simulation.load import Load
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network
from tests.simulation.plan import Plan
from tests.simulation.replicas import Frontend, Slot, WorkerSlot, without_threads
from tests.simulation.server.server import Server
from tests.simulation.story import Story
from tests.simulation.trees import Trees

_START_SECS = 3.0  # until everybody has joined
_QUIET_SECS = 25.0  # after the last fault was mended, in which every request has to end
_SETTLE_SECS = 12.0  # how long after a fault counts may be late
_CLEAN_UP_SECS = 7.0  # a lease and some sweeps: then nothing of dead replicas is left
_NAMESPACE = "sim"


@dataclass
class Outcome:
    """Hold what came of a simulation."""

    plan: Plan
    violations: list[str] = field(default_factory=list)
    story: Story | None = None
    digest: str = ""
    history: History = field(default_factory=History)
    calls: int = 0  # commands that the server executed
    turns: int = 0  # of the event loop


def settings_of(plan: Plan) -> Settings:
    """Return the settings of every replica."""
    return Settings(
        redis_url="redis://redis:6379/0",
        redis_timeout_secs=1.0,
        namespace=_NAMESPACE,
        shards=plan.shards,
        heartbeat_secs=1.0,
        lease_secs=4.0,
        sweep_secs=1.0,
        retention_secs=600.0,
        max_attempts=plan.max_attempts,
        drain_timeout_secs=3.0,
        sse_keepalive_secs=3.0,
        kill_grace_secs=1.0,
        stop_grace_secs=2.0,
        concurrency=plan.teams[0].concurrency,
        preempt=plan.preempt,
    )


def simulate(plan: Plan) -> Outcome:
    """Simulate a plan. The same plan has the same outcome, in any process with the same hash seed."""
    loop = VirtualLoop()
    outcome = Outcome(plan)
    began_at = loop.time() + _START_SECS
    story = outcome.story = Story(lambda: loop.time() - began_at)
    undo = without_threads()
    unraisable = sys.unraisablehook
    handler = _Errors(outcome)
    logging.getLogger().addHandler(handler)
    try:
        with deterministic(loop, plan.seed):
            loop.run_until_complete(_simulate(plan, loop, story, outcome))
    finally:
        logging.getLogger().removeHandler(handler)
        undo()
        logging.disable()
        sys.unraisablehook = lambda _: None  # what a `finally` still wants to do has no event loop any more
        loop.throw_away()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of coroutines that nobody waits for any more
            gc.collect()
        sys.unraisablehook = unraisable
        logging.disable(logging.NOTSET)
    outcome.turns = loop.turns
    return outcome


async def _simulate(plan: Plan, loop: VirtualLoop, story: Story, outcome: Outcome) -> None:
    server = Server(lambda: EPOCH_SECS + loop.time() + faults.clock_step_secs, plan.seed)
    history = outcome.history = History(retention_secs=600.0, settle_secs=_SETTLE_SECS, short=True)
    network = Network(loop, server, random.Random(f"network {plan.seed}"), plan.delay_secs)
    slots = _slots(plan, loop, story)
    frontends = [slot for slot in slots.values() if isinstance(slot, Frontend)]
    faults = Faults(plan, loop, network, slots, history, story)
    trees = Trees(history, lambda: loop.time() - faults._began_at)
    invariants = Invariants(server, _NAMESPACE, story, trees)
    for slot in slots.values():
        slot.start()
    await asyncio.sleep(_START_SECS)
    faults._began_at = loop.time()
    load = Load(plan, loop, frontends, history, story)
    looking = asyncio.create_task(invariants.run(), name="invariants")
    await asyncio.gather(load.run(), faults.run())
    story.note("", "every fault is mended, and the clients have what they asked for")
    unended = await load.look_at_the_end(load.now() + _QUIET_SECS)
    await asyncio.sleep(_CLEAN_UP_SECS)
    outcome.violations += [f"{rid}: it has not ended" for rid in unended]
    outcome.violations += checker.check(history)
    await tasks.end((looking,))
    if not looking.cancelled():
        looking.result()  # it could not look, which is a fault of the simulation
    outcome.violations += await invariants.check_end()
    for slot in slots.values():
        outcome.violations += slot.failures
    outcome.calls, outcome.digest = server.calls, story.digest


def _slots(plan: Plan, loop: VirtualLoop, story: Story) -> dict[str, Slot]:
    settings = settings_of(plan)
    slots: dict[str, Slot] = {}
    for number in range(plan.frontends):
        name = f"frontend-{number}"
        slots[name] = Frontend(name, loop, settings, story)
    workers = [team for team in plan.teams for _ in range(team.workers)]
    for number, team in enumerate(workers):
        name = f"worker-{number}"
        slots[name] = WorkerSlot(name, loop, settings, story, model=team.model, resumable=team.resumable)
    return slots


class _Errors(logging.Handler):
    """Notes what the product logs as an unexpected error."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(logging.ERROR)
        self._outcome = outcome

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and self._outcome.story is not None:
            self._outcome.violations.append(f"logged: {record.getMessage():.200} {record.exc_info[1]!r:.300}")
