"""Read the metrics that docs/metrics.md lists, to compare them with those that a frontend exports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(lifecycle_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
_USED = re.compile(r"\blifecycle_\w+")


@dataclass(frozen=True)
class Metric:
    type: str
    labels: frozenset[str]


def documented() -> dict[str, Metric]:
    """Return the listed metrics by the name of their series, a counter's with `_total`."""
    rows = _ROW.findall(PAGE.read_text())
    assert len({name for name, *_ in rows}) == len(rows), "a metric is listed twice"
    return {name: Metric(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def series() -> set[str]:
    """Every name a query may use."""
    names: set[str] = set()
    for name, metric in documented().items():
        names |= {name + suffix for suffix in ("_bucket", "_sum", "_count")} if metric.type == "histogram" else {name}
    return names


def used(text: str) -> set[str]:
    """The names of series in queries, or in a page with queries."""
    return set(_USED.findall(text))
