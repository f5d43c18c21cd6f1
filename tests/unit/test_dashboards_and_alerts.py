"""Alert rules and the Grafana dashboard: what they ask for exists, and each alert fires on what it is for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import metrics_doc

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "lifecycle.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]

with_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def promtool(*arguments: str) -> str:
    run = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@with_promtool
def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "config", "--lint-fatal", "prometheus.yml")


@pytest.mark.slow
@with_promtool
def test_each_alert_fires_on_what_it_is_for_and_not_on_what_is_normal() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_every_alert_has_a_test() -> None:
    tests = (PROMETHEUS / "alerts_test.yml").read_text()
    missing = [rule["alert"] for rule in ALERTS if f'alertname="{rule["alert"]}", alertstate="firing"' not in tests]
    assert not missing


@pytest.mark.parametrize("page", ["operate.md", "telemetry.md", "scale.md"])
def test_the_guides_name_alerts_that_exist_and_one_names_all(page: str) -> None:
    names = {rule["alert"] for rule in ALERTS}
    named = set(re.findall(r"`(Lifecycle\w+)`", (ROOT / "docs" / page).read_text()))
    assert named <= names
    assert page != "operate.md" or named == names


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_the_matter_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description"} == set(rule["annotations"])


@pytest.mark.parametrize(
    "path",
    [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
        "deploy/grafana/lifecycle.json",
        "docs/metrics.md",
        "docs/operate.md",
        "docs/scale.md",
        "docs/concepts.md",
    ],
)
def test_every_series_that_is_asked_for_exists(path: str) -> None:
    used = metrics_doc.used((ROOT / path).read_text())
    assert used
    assert used <= metrics_doc.series() | set(metrics_doc.documented())


def test_the_dashboard_asks_for_every_metric() -> None:
    """Metrics that other panels show better are excepted: one process's queue and admissions, and a snapshot's age."""
    used = metrics_doc.used(json.dumps(PANELS))
    elsewhere = {
        "lifecycle_requests_started_total",
        "lifecycle_queued_requests",
        "lifecycle_cluster_requests_total",
        "lifecycle_cluster_snapshot_age_seconds",
    }
    unseen = {
        name
        for name in metrics_doc.documented()
        if not used & {name, name + "_bucket", name + "_sum"} and name not in elsewhere
    }
    assert not unseen


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, f"{panel['title']} lies over another panel"
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "model"}


@with_promtool
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    """Let promtool parse the queries as rules, with values in place of Grafana's variables."""
    rules = [
        {"record": f"panel:{panel['id']}:{target['refId']}", "expr": _filled_in(target["expr"])}
        for panel in PANELS
        for target in panel["targets"]
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def _filled_in(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$model", ".*")
