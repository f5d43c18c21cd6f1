"""`python -m benchmarks`: a Markdown table on the terminal, everything else as JSON under `benchmarks/results/`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks.measurement import FULL, QUICK, Effort, Measurement
from benchmarks.report import Report
from benchmarks.system import SYSTEMS, running
from benchmarks.workloads import WORKLOADS, Workload

RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was lost and nothing failed, else 1."""
    args = _parser().parse_args(argv)
    chosen = [workload for workload in WORKLOADS if not args.only or workload.name in args.only]
    repeats = args.repeats or (1 if args.quick else 3)
    report = uvloop.run(measure(args.system, chosen, QUICK if args.quick else FULL, repeats))
    print(report.markdown())
    report.write(args.json or RESULTS / f"{args.system}.json")
    return 1 if report.faults else 0


async def measure(system: str, workloads: Sequence[Workload], effort: Effort, repeats: int) -> Report:
    """Repeats go round: a noisy moment of the machine spoils one of each, not all of one."""
    load_average = os.getloadavg()[0]
    found: dict[str, list[Measurement]] = {workload.name: [] for workload in workloads}
    for repeat in range(repeats):
        for workload in workloads:
            print(f"{workload.name} ({repeat + 1}/{repeats}) …", file=sys.stderr, flush=True)
            async with running(SYSTEMS[system](), workload.layout) as fresh:
                found[workload.name].append(await workload.run(fresh, effort))
    return Report(system, found, load_average)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat: a look, not a figure")
    parser.add_argument("--repeats", type=int, metavar="N", help="of each workload; the median counts (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of benchmarks/results/<system>.json")
    parser.add_argument("--system", choices=sorted(SYSTEMS), default="lifecycle", help="what is measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
