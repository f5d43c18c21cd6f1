"""Simulate seeds: `--seeds 10000` many of them, `--seed N` one with its story, shrunk if it fails.

Ends with status 1 when anything was seen that must not be.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.simulation.campaign import report
from tests.simulation.plan import Plan, plan_of
from tests.simulation.run import Outcome, simulate
from tests.simulation.shrink import Shrinker, kind_of

_HASH_SEED = "0"  # the order of a set of strings depends on it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="simulate this seed and print its story")
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--whole", action="store_true", help="do not shrink a failing seed")
    parser.add_argument("--until-failed", action="store_true", help="end with the first seed that fails")
    parser.add_argument(
        "--failed", type=Path, metavar="FILE", help="write the seeds that fail into this file, with why"
    )
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != _HASH_SEED:
        environment = os.environ | {"PYTHONHASHSEED": _HASH_SEED}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment)
    if given.seed is None:
        seeds = range(given.first, given.first + given.seeds)
        failed = report(seeds, given.processes, until_failed=given.until_failed, path=given.failed)
        return 1 if failed else 0
    plan = plan_of(given.seed)
    outcome = simulate(plan)
    if outcome.violations and not given.whole:
        shorter = Shrinker(lambda candidate: simulate(candidate).violations).shrink(plan, outcome.violations[0])
        outcome = _with_kind(simulate(shorter), kind_of(outcome.violations[0]))
    _print(outcome)
    return 1 if outcome.violations else 0


def _with_kind(outcome: Outcome, kind: str) -> Outcome:
    outcome.violations.sort(key=lambda violation: kind_of(violation) != kind)
    return outcome


def _print(outcome: Outcome) -> None:
    plan: Plan = outcome.plan
    print(f"seed {plan.seed}: {plan.frontends} frontends, {plan.shards} shards, {plan.teams}")
    for request in plan.requests:
        print(f"  {request}")
    for fault in plan.faults:
        print(f"  {fault}")
    print(outcome.story)
    for violation in outcome.violations:
        print(f"VIOLATED {violation}")
    print(f"digest {outcome.digest}, {outcome.calls} commands, {outcome.turns} turns")


if __name__ == "__main__":
    sys.exit(main())
