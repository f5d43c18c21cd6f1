"""The benchmarks work: workloads at their smallest, on real processes. What they measure is not looked at."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import orjson
import pytest

from benchmarks import chart, fairness, membership, primaries
from benchmarks.load import Outcome, Spread
from benchmarks.measurement import TINY, Measurement
from benchmarks.report import Report
from benchmarks.system import SYSTEMS, Layout, running
from benchmarks.workloads import WORKLOADS
from lifecycle.types import RequestRecord, Status

_SMOKE = ("unpaced-32", "paced-200", "steps-32", "unary-32", "cancel", "questions-10")


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
async def test_workloads_find_figures_and_no_faults(name: str) -> None:
    report = Report([name])
    async with running(SYSTEMS[name](), Layout(frontends=2)) as system:
        for workload in (workload for workload in WORKLOADS if workload.name in _SMOKE and workload.suits(name)):
            report.add(workload.name, name, await workload.run(system, TINY))

    assert report.faults == []
    assert report.figures
    assert all(math.isfinite(by_system[name]) for figures in report.figures.values() for by_system in figures.values())


@pytest.mark.slow
async def test_idle_replicas_are_measured_and_asked_about() -> None:
    idle, questions = await membership.measure([4], [2], 0.5)

    assert idle.rows[0][0] == questions.rows[0][0] == "4 x 2"


@pytest.mark.slow
async def test_requests_are_run_on_one_server_and_on_primaries() -> None:
    table = await primaries.measure(3, 256, 2)

    assert [row[0] for row in table.rows] == ["1", "3 primaries"]


def test_a_report_shows_the_medians_and_every_fault(tmp_path_factory: pytest.TempPathFactory) -> None:
    report = Report(["ours"])
    for value in (3.0, 1.0, 2.0):
        report.add("paced-10", "ours", Measurement({"p50_ms": value}))
    report.repeats["paced-10"]["ours"][1].faults.append("1 gaps")
    path = tmp_path_factory.mktemp("results") / "deeper" / "some.json"

    report.write(path)

    assert "| paced-10 | p50_ms | 2 | 1 | 3 |" in report.markdown()
    assert "- paced-10, ours: 1 gaps" in report.markdown()
    assert orjson.loads(path.read_bytes())["figures"] == {"paced-10": {"p50_ms": {"ours": 2.0}}}


def test_a_report_of_two_systems_says_by_how_much_the_first_is_ahead() -> None:
    report = Report(["ours", "theirs"])
    report.add("unpaced-1", "ours", Measurement({"tokens_per_sec": 300.0, "cpu_us_per_token": 10.0}))
    report.add("unpaced-1", "theirs", Measurement({"tokens_per_sec": 100.0, "cpu_us_per_token": 50.0}))

    assert "| unpaced-1 | tokens_per_sec | 300 | 100 | × 3 |" in report.markdown()
    assert "| unpaced-1 | cpu_us_per_token | 10 | 50 | × 5 |" in report.markdown()


def test_what_came_between_two_moments_is_interpolated() -> None:
    nothing = Spread.of_ns([])
    outcome = Outcome(nothing, nothing, nothing, nothing, {}, [], [(100, 0, 0), (200, 10, 1), (300, 30, 3)])

    assert outcome.between(150, 250) == (15.0, 1.5)
    assert outcome.between(50, 400) == (30.0, 3.0)


def test_a_run_becomes_a_chart_and_tables_between_the_marks(tmp_path_factory: pytest.TempPathFactory) -> None:
    docs = tmp_path_factory.mktemp("docs")
    page, run = docs / "performance.md", docs / "run.json"
    page.write_text(f"before\n{chart.BEGINS}\nold\n{chart.ENDS}\nafter\n")
    report = Report(["ours", "theirs"])
    figures = {"delivered_of_due": 1.0, "cpu_us_per_token": 10.0, "yield_to_socket_p99_ms": 1.5}
    report.add("paced-800", "ours", Measurement(figures))
    report.add("paced-800", "theirs", Measurement(figures | {"delivered_of_due": 0.4, "cpu_us_per_token": 40.0}))
    report.add("resume", "ours", Measurement({"tokens_per_sec": 1234.0}))
    report.write(run)

    assert chart.main([str(run), "--docs", str(docs)]) == 0
    text, drawing = page.read_text(), (docs / "performance.svg").read_text()

    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `paced-800` | 100% | 40% | 10 | 40 | **× 4** |" in text
    assert "| `resume` | 1,234 |" in text
    assert ElementTree.fromstring(drawing).tag.endswith("svg")
    assert "falls behind: 40% of what is due" in drawing


def test_the_page_has_the_marks_that_the_chart_command_looks_for() -> None:
    page = (chart.ROOT / "docs" / "performance.md").read_text()

    assert page.index(chart.BEGINS) < page.index(chart.ENDS)


def _record(owner: str, started_at: float, output_tokens: int, usage: dict[str, int] | None) -> RequestRecord:
    return RequestRecord(
        id=f"r{started_at}",
        model="m",
        endpoint="chat_completions",
        request_type="unary",
        status=Status.COMPLETED if usage else Status.FAILED,
        error_type="",
        error_message=None,
        cancel_requested_at=None,
        cancel_reason=None,
        cancel_mode=None,
        on_disconnect="cancel",
        frontend=None,
        worker=None,
        attempt=1,
        created_at=0.0,
        started_at=started_at,
        first_token_at=None,
        last_token_at=None,
        finished_at=None,
        output_tokens=output_tokens,
        finish_reason=None,
        owner=owner,
        usage=usage,
    )


def test_shares_count_what_ended_without_a_report_as_its_owner_is_charged() -> None:
    """An engine that was stopped has not reported its prompt, which is estimated then."""
    told = {"prompt_tokens": 40, "completion_tokens": 40}
    records = [_record("premium", 1.0, 40, told), _record("premium", 2.0, 17, None), _record("regular", 3.0, 40, told)]
    shares = fairness.shares_of(records, 3)
    assert shares.tokens == {"premium": 80 + 17 + len(fairness._BODY) // 4 + 1, "regular": 80}
    assert shares.failed == 1
