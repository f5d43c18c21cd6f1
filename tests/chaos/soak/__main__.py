"""Cause random faults under mixed load, and end with a report.

Ends with status 1 when anything was seen that must not be.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.chaos.soak.deployment import Deployment
from tests.chaos.soak.redis_cluster import RedisCluster
from tests.chaos.soak.report import Report
from tests.chaos.soak.run import Plan, soak
from tests.chaos.soak.sentinel import Sentinels
from tests.chaos.soak.server import Server

_DEPLOYMENTS: dict[str, Callable[[], Deployment]] = {
    "server": Server,
    "sentinel": Sentinels,
    "cluster": RedisCluster,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--redis", choices=sorted(_DEPLOYMENTS), default="server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--secs", type=float, default=600.0)
    parser.add_argument("--frontends", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--slowness", type=float, default=1.0, help="multiplies every limit of time")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose kind contains this")
    parser.add_argument("--history", type=Path, metavar="FILE", help="write the history of the calls there")
    given = parser.parse_args()
    plan = Plan(given.seed, given.secs, given.frontends, given.clients, given.slowness, given.only)
    report = Report(given.redis, given.seed, given.secs)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        asyncio.run(soak(_DEPLOYMENTS[given.redis](), plan, directory, report))
    finally:  # what was seen until something else has failed is shown too
        print(f"\n{report}")
    if given.history is not None:
        report.history.write(given.history)
    if report.violations:
        report.history.write(directory / "history.jsonl")
        print(f"the replicas' logs and the history: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
