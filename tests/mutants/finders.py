"""Ask who finds a fault: the tests, the simulation, and the specification."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import selection
from tests.mutants.mutant import ROOT, Mutant
from tests.spec.planted import FAULTS, explore_with

_TESTS_SECS = 900
_REPLAYED = "spec: "


def by_tests(root: Path, mutant: Mutant) -> str:
    """Return the first test that fails in this tree among those that can see the fault, '' when none does."""
    return _fails(root, selection.fast(mutant), "-m", "not slow") or _fails(root, selection.slow(mutant))


def fails_without(mutants: Sequence[Mutant]) -> str:
    """Return a test that fails without any fault, among those that can see one of these; '' when none does."""
    of_fast = dict.fromkeys(path for mutant in mutants for path in selection.fast(mutant))
    of_slow = dict.fromkeys(path for mutant in mutants for path in selection.slow(mutant))
    return _fails(ROOT, list(of_fast), "-m", "not slow") or _fails(ROOT, list(of_slow))


def _fails(root: Path, paths: Sequence[str], *options: str) -> str:
    if not paths:
        return ""
    ran = _run(root, "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *options, *paths)
    failed = re.search(r"^(?:FAILED|ERROR) tests/\w+/(\S+)", ran, re.MULTILINE)
    if failed is None and not re.search(r"^\d+ passed", ran, re.MULTILINE):
        raise ValueError(f"pytest ran no test of {paths}: {ran[-500:]}")
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
    found = _explored(mutant.spec) if mutant.spec else ""
    return found.removeprefix("VIOLATED ") if found.startswith("VIOLATED") else ""


@functools.cache
def _explored(what: str) -> str:
    return explore_with(FAULTS[what])


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
