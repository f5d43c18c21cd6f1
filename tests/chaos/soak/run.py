"""Run a cluster under load and break one thing after the other."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifecycle.settings import Settings
from tests.chaos.audit.checker import check
from tests.chaos.audit.history import History, Window
from tests.chaos.audit.load import Load
from tests.chaos.audit.recorder import Recorder
from tests.chaos.bench import Bench, open_bench
from tests.chaos.invariants import Violated
from tests.chaos.soak.client_faults import ClientFaults
from tests.chaos.soak.deployment import Deployment
from tests.chaos.soak.fault import Bag
from tests.chaos.soak.membership_faults import MembershipFaults
from tests.chaos.soak.memory_faults import MemoryFaults
from tests.chaos.soak.replica_faults import ReplicaFaults, Served
from tests.chaos.soak.report import Report
from tests.leaks import leaks

_RECOVERS_WITHIN_SECS = 30.0
_PAUSE_SECS = 4.5  # between the beginnings of two faults, if the first is over
_CLIENT_TIMEOUT_SECS = 60.0
_RETENTION_SECS = 40.0
_SETTLE_SECS = 8.0  # lease, sweep and the time that a reaper has
_MODELS: dict[str, Served] = {
    "echo": ("echo", {"echo_tokens_per_sec": 50.0}),
    "signed": ("tests.chaos.engines:signed", {}),
    "steadfast": ("tests.chaos.engines:steadfast", {}),
}
_TEXTS = (("echo", "echo"), ("signed", "signed"), ("steadfast", "signed"))
_FILLED = ("echo", "echo")  # a model, and the kind of its text
_WORKERS = ("echo", "echo", "signed", "signed", "steadfast", "steadfast")


@dataclass(frozen=True)
class Plan:
    """`slowness` multiplies every limit of time, for a machine that is busy; `only` keeps faults whose kind has it."""

    seed: int
    secs: float
    frontends: int = 2
    clients: int = 8
    slowness: float = 1.0
    only: str = ""


async def soak(deployment: Deployment, plan: Plan, directory: Path, report: Report) -> None:
    """Fill the report; what is found raises nothing. The replicas' logs are left in `directory`."""
    with deployment.running():
        settings = Settings(
            redis_url=deployment.url,
            namespace="soak",
            shards=deployment.shards,
            headers_after_secs=0.0,
            redis_timeout_secs=0.5,
            heartbeat_secs=0.5,
            lease_secs=2.0,
            sweep_secs=0.5,
            retention_secs=_RETENTION_SECS,
            sse_keepalive_secs=2.0,
            drain_timeout_secs=10.0,
            stop_grace_secs=1.0,
        )
        watching: dict[str, Any] = {
            "poll_secs": 0.5,
            "settle_secs": _RECOVERS_WITHIN_SECS * plan.slowness,
            "consequences_secs": _SETTLE_SECS * plan.slowness,
        }
        with suppress(Violated):  # it is in the report
            async with open_bench(
                settings,
                directory,
                frontends=plan.frontends,
                workers=0,
                open_links=deployment.open_links,
                **watching,
            ) as bench:
                bench.invariants.violations = report.violations
                await _under_load(deployment, plan, bench, report)
                report.violations += await leaks(bench.store.commands, settings.namespace)
    report.violations += check(report.history)


async def _under_load(deployment: Deployment, plan: Plan, bench: Bench, report: Report) -> None:
    dice = random.Random(f"faults {plan.seed}")
    replicas = ReplicaFaults(bench, dice, _MODELS, plan.slowness)
    for model in _WORKERS:
        await replicas.add_worker(model)
    slack_secs = _SETTLE_SECS * plan.slowness
    report.history = History(retention_secs=_RETENTION_SECS - slack_secs, settle_secs=slack_secs)
    recorder = Recorder(bench.http, report.history, timeout_secs=_CLIENT_TIMEOUT_SECS * plan.slowness)
    memory = MemoryFaults(bench, recorder, deployment.primaries, lambda: replicas.serving(_FILLED[0]), _FILLED, dice)
    parts = (replicas, ClientFaults(bench, dice), memory, MembershipFaults(bench, dice))
    faults = [*(fault for part in parts for fault in part.faults()), *deployment.faults(bench, dice)]
    drawn = [fault for fault in faults if plan.only in fault.kind]
    report.faults.update({fault.kind: 0 for fault in drawn})
    bag = Bag(drawn, plan.seed)
    load = Load(
        recorder,
        lambda: [frontend.url for frontend in bench.serving],
        _TEXTS,
        seed=plan.seed,
        clients=plan.clients,
        prefix="",
    )
    running = asyncio.create_task(load.run(), name="load")
    began_at = time.monotonic()
    try:
        while time.monotonic() - began_at < plan.secs and not running.done():
            await _one_fault(bag, bench, recorder, load, plan, report)
    finally:
        load.stop()
        await running
        report.outcomes = load.outcomes
        report.took_secs = time.monotonic() - began_at
        report.polls = bench.invariants.polls
    await bench.invariants.settle()


async def _one_fault(bag: Bag, bench: Bench, recorder: Recorder, load: Load, plan: Plan, report: Report) -> None:
    fault = bag.draw()
    begins_at = recorder.now()
    if fault.loses_data:
        bench.invariants.data_may_be_lost()
    what, frontends = await fault.strike()
    recovered = await _recovers(bench, load, plan)
    if fault.loses_data:
        bench.invariants.data_was_lost()
    ends_at = recorder.now()
    window = Window(
        begins_at, ends_at, f"{fault.kind} ({what})", fault.loses_data, frontends, expires_leases=fault.expires_leases
    )
    recorder.history.windows.append(window)
    report.faults[fault.kind] += 1
    report.recovery_secs[fault.kind] = max(ends_at - begins_at, report.recovery_secs[fault.kind])
    outcome = "recovered within" if recovered else "NOT RECOVERED within"
    print(f"{begins_at:6.1f} {fault.kind} ({what}): {outcome} {ends_at - begins_at:.1f} s", flush=True)
    await asyncio.sleep(max(0.5, _PAUSE_SECS - (ends_at - begins_at)))


async def _recovers(bench: Bench, load: Load, plan: Plan) -> bool:
    """Wait until every process holds a lease, no request belongs to another replica, and every model is served."""
    give_up_at = time.monotonic() + _RECOVERS_WITHIN_SECS * plan.slowness
    invariants = bench.invariants
    while True:
        pids = {process.pid for process in (*bench.frontends, *bench.workers)}
        if await invariants.look() and invariants.living == pids and not invariants.orphans and await load.served():
            return True
        if time.monotonic() > give_up_at:
            break
        await asyncio.sleep(0.1)
    orphans = sorted(invariants.orphans)
    invariants.note(
        f"not recovered: processes {sorted(pids)}, with a lease {sorted(invariants.living)}, "
        f"requests of expired replicas {orphans}"
    )
    return False
