"""Ask who finds a fault: the tests, the simulation, and the specification."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.spec.planted import FAULTS, explore_with

TESTS = [
    "test_appending",
    "test_counting",
    "test_counts",
    "test_drains",
    "test_idempotent_ids",
    "test_interruption",
    "test_leaving_frontend",
    "test_lifecycle_machine",
    "test_lost_replicas",
    "test_lost_starts",
    "test_membership",
    "test_monitor",
    "test_orphans",
    "test_queue_order",
    "test_queued_bytes",
    "test_races",
    "test_reader",
    "test_readers",
    "test_resuming",
    "test_starting",
    "test_timeline",
    "test_transitions",
    "test_unknown_replicas",
    "test_whole_answers",
]
"""The modules of the fast tier that are about requests, replicas, queues and readers."""

_TESTS_SECS = 900
_REPLAYED = "spec: "


def by_tests(root: Path) -> str:
    """Return the first test that fails in this tree, '' when none does."""
    paths = [f"tests/unit/{name}.py" for name in TESTS]
    ran = _run(root, "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", *paths)
    failed = re.search(r"^(?:FAILED|ERROR) tests/unit/(\S+)", ran, re.MULTILINE)
    return failed[1] if failed else ""


def by_simulation(root: Path, seeds: int) -> tuple[str, str]:
    """Return the first seed that fails in this tree, and the first that contradicts the specification; '' for none."""
    ran = _run(root, "tests.simulation", "--seeds", str(seeds), "--processes", "1", "--until-failed")
    failed = re.findall(r"^seed (\d+): (.*)", ran, re.MULTILINE)
    return (
        next((f"seed {seed}" for seed, what in failed if not what.startswith(_REPLAYED)), ""),
        next((f"replay of seed {seed}" for seed, what in failed if what.startswith(_REPLAYED)), ""),
    )


def by_spec(mutant: Mutant) -> str:
    """Return what is violated in the specification with the same fault, '' when it has none or nothing is found."""
    found = explore_with(FAULTS[mutant.spec]) if mutant.spec else ""
    return found.removeprefix("VIOLATED ") if found.startswith("VIOLATED") else ""


def _run(root: Path, module: str, *arguments: str) -> str:
    try:
        ran = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_TESTS_SECS,
        )
    except subprocess.TimeoutExpired:
        return "FAILED tests/unit/none: it hung\nseed -1: it hung\n"
    return ran.stdout
