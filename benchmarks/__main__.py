"""`python -m benchmarks`: this system and the naive build side by side, as a Markdown table on the terminal and with
everything there is as JSON under `benchmarks/results/`.

    python -m benchmarks --only 'paced-*' --only unpaced-256 --quick
    python -m benchmarks --only paced-200 --system lifecycle --repeats 1 --profile /tmp/profiles

The third system, `bare`, is one FastAPI process that runs the engine itself: what streams cost without any tracking.

    python -m benchmarks --only short-32 --system lifecycle --system naive --system bare
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from benchmarks.measurement import FULL, QUICK, Effort, Measurement
from benchmarks.report import Report
from benchmarks.system import COMPARED, SYSTEMS, System, running
from benchmarks.workloads import WORKLOADS, Workload, chosen

RESULTS = Path(__file__).parent / "results" / "latest.json"
_LONGEST_SECS = 300.0  # of one workload, whatever happens in it


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was lost and nothing failed, else 1."""
    parser = _parser()
    args = parser.parse_args(argv)
    workloads = chosen(args.only)
    if not workloads:
        parser.error(f"no workload is called so; there are {', '.join(workload.name for workload in WORKLOADS)}")
    effort = replace(QUICK if args.quick else FULL, profiles=args.profile)
    raise_file_limit()
    report = uvloop.run(measure(args.system or COMPARED, workloads, effort, args.repeats or (1 if args.quick else 3)))
    print(report.markdown())
    report.write(args.json)
    return 1 if report.faults else 0


async def measure(systems: Sequence[str], workloads: Sequence[Workload], effort: Effort, repeats: int) -> Report:
    """Repeats go round, and systems take turns within them: a noisy moment spoils one of each, not all of one."""
    report = Report(systems, load_average=os.getloadavg()[0])
    for repeat in range(repeats):
        for workload in workloads:
            for name in filter(workload.suits, systems):
                print(f"{workload.name}, {name} ({repeat + 1}/{repeats}) …", file=sys.stderr, flush=True)
                system = SYSTEMS[name]()
                report.redis_server = system.redis_server
                report.add(workload.name, name, await _run(workload, system, effort))
    return report


async def _run(workload: Workload, system: System, effort: Effort) -> Measurement:
    if effort.profiles is not None:
        effort = replace(effort, profiles=effort.profiles / workload.name)
    try:
        async with asyncio.timeout(_LONGEST_SECS), running(system, workload.layout):
            return await workload.run(system, effort)
    except Exception as failure:  # the others of a long run still count
        traceback.print_exc()
        return Measurement(faults=[f"came to no end: {failure!r}"])


def raise_file_limit() -> None:
    """Raise the limit of open files to the user's maximum: 2,000 streams are 4,000 sockets in a frontend."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(workload.name for workload in WORKLOADS)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one of {names}; or a pattern")
    parser.add_argument("--system", action="append", choices=sorted(SYSTEMS), help="this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="less of everything, one repeat: a look, not a figure")
    parser.add_argument("--repeats", type=int, metavar="N", help="of each workload; the median counts (3)")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="instead of %(default)s")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="py-spy's view of each process, per workload")
    return parser


if __name__ == "__main__":
    sys.exit(main())
