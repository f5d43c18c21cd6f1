"""The benchmarks work: every workload at its smallest, on real processes. What they measure is not looked at."""

from __future__ import annotations

import math

import orjson
import pytest

from benchmarks.load import Outcome, Spread
from benchmarks.measurement import TINY, Measurement
from benchmarks.report import Report
from benchmarks.system import Layout, Lifecycle, running
from benchmarks.workloads import WORKLOADS


async def test_every_workload_finds_figures_and_no_faults() -> None:
    async with running(Lifecycle(), Layout(frontends=2)) as system:
        found = {workload.name: [await workload.run(system, TINY)] for workload in WORKLOADS}
    report = Report(system.name, found, load_average=0.0)

    assert report.faults == []
    assert {row.workload for row in report.rows} == set(found)
    assert all(math.isfinite(value) for row in report.rows for value in row.values)


def test_a_report_shows_the_median_of_the_repeats_and_every_fault(tmp_path_factory: pytest.TempPathFactory) -> None:
    repeats = [Measurement({"p50_ms": value}) for value in (3.0, 1.0, 2.0)]
    repeats[1].faults.append("1 gaps")
    report = Report("some", {"paced": repeats}, 0.5)
    path = tmp_path_factory.mktemp("results") / "deeper" / "some.json"

    report.write(path)

    assert "| paced | p50_ms | 2 | 1 | 3 |" in report.markdown()
    assert "- paced: 1 gaps" in report.markdown()
    assert orjson.loads(path.read_bytes())["figures"] == {"paced": {"p50_ms": 2.0}}


def test_tokens_at_a_moment_are_interpolated() -> None:
    nothing = Spread.of_ns([])
    outcome = Outcome(30, 2.0, nothing, nothing, {}, [], [(100, 0), (200, 10), (300, 30)])

    assert [outcome.tokens_at(clock_ns) for clock_ns in (50, 150, 200, 250, 400)] == [0, 5, 10, 20, 30]
