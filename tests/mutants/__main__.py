"""Plant each fault in a copy of the product, and say who finds it; with `--table PAGE` also in that page.

Ends with status 1 when a fault is found by nobody.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.finders import by_simulation, by_spec, by_tests, fails_without
from tests.mutants.found import Found, Results, table
from tests.mutants.mutant import ROOT, Mutant, planted

_BEGIN, _END = "<!-- mutants -->", "<!-- end of mutants -->"


def look_for(mutant: Mutant, seeds: int, *, skips_tests: bool) -> Found:
    """Look for one fault everywhere."""
    with planted(mutant) as root:
        tests = "" if skips_tests else by_tests(root, mutant)
        simulation, replay = by_simulation(root, seeds)
    return Found(mutant.what, tests, simulation or replay, "model" if by_spec(mutant) else replay)


def _wrong_text(mutants: Sequence[Mutant]) -> list[str]:
    """Return what is wrong with faults whose text is not in the product."""
    wrong: list[str] = []
    for mutant in mutants:
        try:
            mutant.applied((ROOT / mutant.file).read_text())
        except ValueError as failure:
            wrong.append(f"{mutant.what}: {failure}")
    return wrong


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=60, help="how many the simulation may use for each fault")
    parser.add_argument("--processes", type=int, default=2, help="how many faults are looked for at once")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose description contains this")
    parser.add_argument("--without-tests", action="store_true", help="only the simulation and the specification")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without any fault first")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="write the table into this page")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="keep the results here, and look only for faults that are not there",
    )
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    mutants = [mutant for mutant in MUTANTS if given.only in mutant.what]
    if wrong := _wrong_text(mutants):
        print("\n".join(wrong))
        return 2
    results = Results(given.results)
    left = [mutant for mutant in mutants if not results.has(mutant)]
    if left and not (given.without_tests or given.unchecked) and (failed := fails_without(left)):
        print(f"{failed} fails without any fault: mend that first, or nothing can be told of the tests")
        return 2

    def look(mutant: Mutant) -> None:
        results.add(mutant, look_for(mutant, given.seeds, skips_tests=given.without_tests))

    with ThreadPoolExecutor(given.processes) as pool:  # each waits for processes of its own
        list(pool.map(look, left))
    found = [results.of(mutant) for mutant in mutants]
    if given.table is not None:
        before, _, rest = given.table.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        given.table.write_text(f"{before}{_BEGIN}\n{table(found, given.seeds)}{_END}{after}")
    missed = [each.what for each in found if not any(each[1:])]
    print(f"{len(found)} faults, found by nobody: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
