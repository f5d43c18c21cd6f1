"""The simulation itself: many seeds, replays, and shrinking."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.invariants import Invariants
from tests.simulation.plan import Plan, plan_of
from tests.simulation.run import simulate
from tests.simulation.shrink import Shrinker, kind_of

_ROOT = Path(__file__).resolve().parents[2]


def _simulate(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_violated_in_120_seeds() -> None:
    ran = _simulate("--seeds", "120")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
def test_a_seed_has_the_same_story_in_each_process() -> None:
    first, second = _simulate("--seed", "4", hash_seed="1"), _simulate("--seed", "4", hash_seed="2")
    assert re.search(r"^digest \w{16}", first.stdout, re.MULTILINE), first.stdout + first.stderr
    assert first.stdout == second.stdout


def test_an_invariant_that_cannot_be_checked_ends_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing would be looked at until the end, and every seed would be well."""
    look, looks = Invariants.look, 0

    def fails_once(self: Invariants) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise ZeroDivisionError
        look(self)

    monkeypatch.setattr(Invariants, "look", fails_once)
    with pytest.raises(ZeroDivisionError):
        simulate(plan_of(5))


def test_a_failing_plan_is_shrunk_to_what_it_needs() -> None:
    plan = plan_of(5)
    needed, fault = plan.requests[3], plan.faults[0]

    def violations_of(candidate: Plan) -> list[str]:
        rids = [request.rid for request in candidate.requests]
        return [f"{needed.rid}: wrong at 1.5 s"] if needed.rid in rids and fault in candidate.faults else []

    shorter = Shrinker(violations_of).shrink(plan, "r99: wrong at 77.0 s")
    assert [request.rid for request in shorter.requests] == [needed.rid]
    assert shorter.faults == (fault,)
    assert shorter.requests[0].visits == ()
    assert replace(shorter, requests=(), faults=(), shards=1) == replace(plan, requests=(), faults=(), shards=1)


def test_the_kind_of_a_violation_names_no_request() -> None:
    one = "r6: two ends: completed (by admit at 3.21 s) and failed state_lost (by status at 4.00 s)"
    other = "r12: two ends: completed (by admit at 13.00 s) and failed state_lost (by status at 14.10 s)"
    assert kind_of(one) == kind_of(other)
    assert kind_of(one) != kind_of(one.replace("completed", "cancelled"))
