"""The contents of `top`: rates and endings between two snapshots, and the order that is asked for."""

from __future__ import annotations

import pytest
from rich.console import Console

from lifecycle.cli.view import ORDERS, Trend, View, render, silence_secs
from lifecycle.queries.cluster import ClusterSnapshot, Count, Inflight
from lifecycle.types import Labels, RequestRecord

RECORD = RequestRecord.from_hash(
    {
        "id": "old",
        "model": "m",
        "endpoint": "completions",
        "request_type": "stream",
        "status": "running",
        "on_disconnect": "cancel",
        "frontend": "f",
        "worker": "w2",
        "attempt": "1",
        "created_at": "100",
        "started_at": "101",
        "first_token_at": "102",
        "last_token_at": "110",
        "output_tokens": "80",
    }
)
NEW = RECORD._replace(id="new", model="a", worker="w1", created_at=105.0, first_token_at=106.0, output_tokens=8)
SILENT = NEW._replace(id="silent", model="z", worker="w3", created_at=103.0, last_token_at=104.0, output_tokens=4)


def snapshot(completed: int = 0, cancelled: int = 0, inflight: int = 3) -> ClusterSnapshot:
    labels = ("m", "completions", "stream")
    counts = Inflight({Labels(*labels): Count(running=inflight)}, [], 112.0)
    totals = {(*labels, "success", ""): completed, (*labels, "error", "cancelled"): cancelled}
    return ClusterSnapshot(counts, [], totals, {}, 100.0, ("e",), 0, {})


def shown(view: View, order: str = "a", notice: str = "") -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(render(view, order, notice=notice))
    return capture.get()


def test_rates_are_since_the_look_before() -> None:
    trend = Trend()
    view = trend.follow(snapshot(), [RECORD, SILENT], 112.0)
    assert view.rates == {"old": 8.0, "silent": pytest.approx(4 / 6)}  # since their first tokens
    view = trend.follow(snapshot(), [RECORD._replace(output_tokens=90), SILENT, NEW], 114.0)
    assert view.rates == {"old": 5.0, "silent": 0.0, "new": 1.0}
    assert "tokens/s 6 " in shown(view)
    assert "longest silence 10s" in shown(view)


def test_endings_are_those_of_the_last_minute() -> None:
    trend = Trend()
    first = trend.follow(snapshot(completed=5, cancelled=1), [], 100.0)
    assert "ended in total:   cancelled 1   completed 5" in shown(first)
    view = trend.follow(snapshot(completed=7, cancelled=1), [], 130.0)
    assert (view.recent, view.recent_secs) == ({"completed": 2}, 30.0)
    view = trend.follow(snapshot(completed=7, cancelled=2), [], 170.0)
    assert (view.recent, view.recent_secs) == ({"cancelled": 1}, 40.0)
    assert "ended in the last 40 s:   cancelled 1" in shown(view)


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ("a", ["old", "silent", "new"]),
        ("s", ["silent", "old", "new"]),
        ("t", ["old", "new", "silent"]),
        ("r", ["old", "new", "silent"]),
        ("m", ["new", "old", "silent"]),
        ("w", ["new", "old", "silent"]),
    ],
)
def test_each_order(order: str, ids: list[str]) -> None:
    view = Trend().follow(snapshot(), [RECORD, SILENT, NEW._replace(last_token_at=111.0)], 112.0)
    lines = shown(view, order).splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ids
    assert f"by {ORDERS[order][0]}" in shown(view, order)


def test_it_says_when_there_is_more_and_when_it_is_old() -> None:
    view = Trend().follow(snapshot(inflight=50), [RECORD], 112.0)
    text = shown(view, notice="This picture is old: Redis is away")
    assert text.startswith("This picture is old")
    assert "the 1 oldest of 50" in text
    assert "(of those shown)" in text


def test_a_queued_one_is_not_silent() -> None:
    assert silence_secs(RECORD, 112.0) == 2.0
    assert silence_secs(RECORD._replace(status=RECORD.status.QUEUED), 112.0) == 0.0
