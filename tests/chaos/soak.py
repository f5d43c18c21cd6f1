"""Random faults under mixed load: `python -m tests.chaos.soak --seed 1 --secs 600`.

A cluster of its own, with an append-only Redis; a fault every few seconds, one at a time, chosen by the seed; the
invariants all the while. Ends with a report, and with status 1 when anything was seen that must not be.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from tests.chaos.bench import Bench, open_bench
from tests.chaos.havoc import Havoc, Served
from tests.chaos.invariants import Violated
from tests.chaos.soak_load import Load
from tests.leaks import leaks

HEALED_WITHIN_SECS = 30.0
_PAUSE_SECS = 4.5  # between the beginnings of two faults, if the first has healed
_MODELS: dict[str, Served] = {
    "echo": ("echo", {"echo_tokens_per_sec": 50.0}),
    "gentle": ("echo", {"echo_tokens_per_sec": 10.0}),
    "steadfast": ("tests.chaos.engines:steadfast", {}),
}
_DURABLE = {"appendonly": "yes", "appendfsync": "always"}  # what Redis has answered survives its kill


@dataclass
class Report:
    seed: int
    secs: float
    faults: Counter[str] = field(default_factory=Counter)
    healing_secs: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # the worst, by kind
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    polls: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.secs:.0f} s, {self.polls} checks of every invariant", "", "faults:"]
        lines += [
            f"  {n:4} {kind:20} healed in {self.healing_secs[kind]:.1f} s at worst" for kind, n in _sorted(self.faults)
        ]
        lines += ["", f"requests: {self.ended.total()}"]
        lines += [f"  {n:5} {how}" for how, n in self.ended.most_common()]
        lines += ["", f"clients: {self.outcomes.total()}"]
        lines += [f"  {n:5} {kind}: {outcome}" for (kind, outcome), n in _sorted(self.outcomes)]
        worst = max(self.healing_secs.values(), default=0.0)
        lines += ["", f"worst healing: {worst:.1f} s", f"violations: {len(self.violations)}"]
        lines += [f"  {violation}" for violation in self.violations]
        return "\n".join(lines)


async def soak(seed: int, secs: float, directory: Path, *, frontends: int = 2, clients: int = 8) -> Report:
    """Raises nothing for what it finds: the report says it. The replicas' logs are left in `directory`."""
    report = Report(seed, secs)
    with EmbeddedRedis(port=0, config=_DURABLE) as redis:
        settings = Settings(
            headers_after_secs=0.0,
            redis_url=redis.url,
            namespace="soak",
            redis_timeout_secs=0.5,
            heartbeat_secs=0.5,
            lease_secs=2.0,
            sweep_secs=0.5,
            retention_secs=40.0,
            sse_keepalive_secs=2.0,
            drain_timeout_secs=10.0,
            stop_grace_secs=1.0,
            echo_tokens_per_sec=50.0,
        )
        watching: dict[str, Any] = {"poll_secs": 0.5, "settle_secs": HEALED_WITHIN_SECS, "consequences_secs": 8.0}
        with suppress(Violated):
            async with open_bench(settings, directory, frontends=frontends, workers=0, **watching) as bench:
                bench.invariants.violations = report.violations
                havoc = Havoc(bench, redis, seed, _MODELS)
                for model in ("echo", "echo", "gentle", "steadfast", "steadfast"):
                    await havoc.add_worker(model)
                await _soak(bench, havoc, Load(bench, seed, clients), report)
                report.violations += await leaks(bench.store.commands, settings.namespace)
    return report


async def _soak(bench: Bench, havoc: Havoc, load: Load, report: Report) -> None:
    loading = asyncio.create_task(load.run(), name="load")
    over_at = time.monotonic() + report.secs
    try:
        while time.monotonic() < over_at and not loading.done():
            begun_at = time.monotonic()
            kind, what = await havoc.strike()
            healed = await _heals(bench, load)
            took_secs = time.monotonic() - begun_at
            report.faults[kind] += 1
            report.healing_secs[kind] = max(took_secs, report.healing_secs[kind])
            print(f"{kind} ({what}): {'healed in' if healed else 'NOT HEALED in'} {took_secs:.1f} s", flush=True)
            await asyncio.sleep(max(0.5, _PAUSE_SECS - took_secs))
    finally:
        load.stop()
        await loading
        report.outcomes = load.outcomes
    await bench.invariants.settle()
    await bench.invariants.check_readings()
    report.polls = bench.invariants.polls
    report.ended = Counter(" ".join((r.status, r.error_type)).strip() for r in bench.invariants.ended.values())


async def _heals(bench: Bench, load: Load) -> bool:
    """Every process holds a lease, no request belongs to anyone who does not, the gauge says so, and all is served."""
    give_up_at = time.monotonic() + HEALED_WITHIN_SECS
    invariants = bench.invariants
    while time.monotonic() < give_up_at:
        pids = {process.pid for process in (*bench.frontends, *bench.workers)}
        if await invariants.look() and invariants.living == pids and not invariants.orphans:
            with suppress(httpx2.TransportError):
                if await load.served(invariants.polls):
                    return True
        await asyncio.sleep(0.1)
    of_the_dead = sorted(invariants.orphans)
    invariants.note(f"not healed: processes {pids}, with a lease {invariants.living}, of the dead {of_the_dead}")
    return False


def _sorted(counter: Counter) -> Sequence:  # type: ignore[type-arg]
    return sorted(counter.items())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--secs", type=float, default=600.0)
    parser.add_argument("--frontends", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    report = asyncio.run(soak(given.seed, given.secs, directory, frontends=given.frontends, clients=given.clients))
    print(f"\n{report}")
    if report.violations:
        print(f"the replicas' logs: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
