"""Plant each fault in a copy of the product, and say who finds it; with `--table PAGE` also in that page.

Ends with status 1 when a fault is found by nobody.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from tests.mutants.catalogue import MUTANTS
from tests.mutants.finders import by_simulation, by_spec, by_tests
from tests.mutants.mutant import ROOT, Mutant, planted

_BEGIN, _END = "<!-- mutants -->", "<!-- end of mutants -->"


class Found(NamedTuple):
    """Tell who has found a fault: where, or '' for nobody."""

    what: str
    tests: str
    simulation: str
    spec: str

    @property
    def row(self) -> str:
        return f"| {self.what} | {' | '.join(place or '–' for place in self[1:])} |"


def look_for(mutant: Mutant, seeds: int, *, skips_tests: bool) -> Found:
    """Look for one fault everywhere."""
    with planted(mutant) as root:
        tests = "" if skips_tests else by_tests(root)
        simulation, replay = by_simulation(root, seeds)
    return Found(mutant.what, tests, simulation or replay, "model" if by_spec(mutant) else replay)


def table(found: list[Found], seeds: int) -> str:
    """Return the page's part about mutants."""
    counts = [sum(bool(each[index]) for each in found) for index in (1, 2, 3)]
    head = (
        f"Of {len(found)} faults the tests find {counts[0]}, {seeds} seeds of the simulation {counts[1]}, "
        f"and the specification {counts[2]}.\n\n| fault | tests | simulation | specification |\n|---|---|---|---|\n"
    )
    return head + "\n".join(each.row for each in found) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=60, help="how many the simulation may use for each fault")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose description contains this")
    parser.add_argument("--without-tests", action="store_true", help="only the simulation and the specification")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="write the table into this page")
    given = parser.parse_args()
    if not given.without_tests and (failed := by_tests(ROOT)):
        print(f"{failed} fails without any fault: mend that first, or nothing can be told of the tests")
        return 2
    found: list[Found] = []
    for mutant in MUTANTS:
        if given.only in mutant.what:
            found.append(look_for(mutant, given.seeds, skips_tests=given.without_tests))
            print(found[-1].row, flush=True)
    if given.table is not None:
        before, _, rest = given.table.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        given.table.write_text(f"{before}{_BEGIN}\n{table(found, given.seeds)}{_END}{after}")
    missed = [each.what for each in found if not any(each[1:])]
    print(f"{len(found)} faults, found by nobody: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
