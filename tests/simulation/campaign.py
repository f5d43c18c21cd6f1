"""Simulate many seeds in several processes, and show how it goes."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.simulation.plan import plan_of
from tests.simulation.run import simulate

_SHOWN_EVERY_SECS = 10.0


class Result(NamedTuple):
    """Hold what came of one seed."""

    seed: int
    digest: str
    violations: list[str]


def run_seed(seed: int) -> Result:
    """Simulate one seed. An exception of the simulation itself counts as a violation."""
    try:
        outcome = simulate(plan_of(seed))
    except Exception as failure:
        return Result(seed, "", [f"the simulation failed: {failure!r}"])
    return Result(seed, outcome.digest, outcome.violations)


def campaign(seeds: range, processes: int) -> Iterator[Result]:
    """Yield the results of all seeds, in any order."""
    gc.freeze()  # what is there now stays: the collection after each seed need not look at it
    if processes <= 1:
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(run_seed, seeds, chunksize=4)


def report(seeds: range, processes: int, *, until_failed: bool = False, path: Path | None = None) -> list[Result]:
    """Simulate all seeds, print what fails and the progress, and return the results that have violations.

    `until_failed`: end with the first of them. `path`: a file that gets each of them as soon as it is known.
    """
    if path is not None:
        path.write_text("")
    failed: list[Result] = []
    began_at = shown_at = time.perf_counter()
    for done, result in enumerate(campaign(seeds, processes), 1):
        if result.violations:
            failed.append(result)
            print(f"seed {result.seed}: {result.violations[0]:.240}", flush=True)
            if path is not None:
                with path.open("a") as file:
                    file.writelines(f"seed {result.seed}: {violation}\n" for violation in result.violations)
            if until_failed:
                print(*(f"seed {result.seed}: {more:.240}" for more in result.violations[1:]), sep="\n", flush=True)
                break
        now = time.perf_counter()
        if now - shown_at > _SHOWN_EVERY_SECS or done == len(seeds):
            shown_at = now
            rate = done / (now - began_at)
            left_mins = (len(seeds) - done) / rate / 60
            print(
                f"{done:,} of {len(seeds):,} seeds, {rate:.1f} a second, {len(failed)} failed, "
                f"{left_mins:.0f} minutes left",
                file=sys.stderr,
            )
    return failed
