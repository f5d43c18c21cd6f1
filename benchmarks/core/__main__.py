"""`python -m benchmarks.core [NAME…]`: run all measurements of the core, or the named ones, and print their tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import uvloop

from benchmarks.core import (
    bodies,
    clients,
    idle,
    membership,
    memory,
    outputs,
    queue_depth,
    queue_scale,
    replication,
    scrape,
    script_share,
    scripts,
    worst,
)
from benchmarks.core.table import Table

Measure = Callable[[bool], Awaitable[list[Table]]]

MEASUREMENTS: Mapping[str, Measure] = {
    "scripts": scripts.measure,
    "script_share": script_share.measure,
    "worst": worst.measure,
    "membership": membership.measure,
    "memory": memory.measure,
    "scrape": scrape.measure,
    "bodies": bodies.measure,
    "outputs": outputs.measure,
    "queue_depth": queue_depth.measure,
    "queue_scale": queue_scale.measure,
    "clients": clients.measure,
    "idle": idle.measure,
    "replication": replication.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of each chosen measurement as soon as it has ended; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__)
    names = ", ".join(MEASUREMENTS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {names}; all of them when none is named")
    parser.add_argument("--quick", action="store_true", help="less of everything: it shows that all works, no figure")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in MEASUREMENTS]:
        parser.error(f"there is no measurement {', '.join(unknown)}; there are {names}")
    uvloop.run(_run(args.names or list(MEASUREMENTS), args.quick))
    return 0


async def _run(names: Sequence[str], quick: bool) -> None:
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        for table in await MEASUREMENTS[name](quick):
            print(f"{table.text()}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
