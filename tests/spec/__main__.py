"""Explore the specification of a request's life: every state of several small worlds.

Ends with status 1 when something is violated, and tells the steps that lead to it.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.spec.explore import Explorer
from tests.spec.sizes import FULL, QUICK


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.spec", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the worlds that the suite explores")
    parser.add_argument("--only", default="", metavar="TEXT", help="only worlds whose name contains this")
    given = parser.parse_args()
    violated = False
    for name, size in (QUICK if given.quick else FULL).items():
        if given.only not in name:
            continue
        began_at = time.process_time()
        found = Explorer(size).run()
        took_secs = time.process_time() - began_at
        print(f"{name}: {found.states:,} states, {found.transitions:,} steps, {took_secs:.1f} s of CPU", flush=True)
        if found.violation:
            violated = True
            print("\n".join(["VIOLATED " + found.violation, *(f"  {step}" for step in found.story)]))
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
