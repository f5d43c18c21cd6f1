"""Several runs of the same workloads as one table, and as JSON with all there is."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.measurement import Measurement

_MORE_IS_BETTER = ("tokens_per_sec", "requests_per_sec")
_NO_COMPARISON = ("_cores", "_mib", "load_cpu_us_per_token", "load_cpu_us_per_request", "delivered_of_due", "trials")


@dataclass(slots=True)
class Report:
    systems: Sequence[str]
    redis_server: str = ""
    load_average: float = 0.0  # of the machine, before anything was started
    repeats: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)  # by workload and system

    def add(self, workload: str, system: str, measurement: Measurement) -> None:
        self.repeats.setdefault(workload, {}).setdefault(system, []).append(measurement)

    @property
    def count(self) -> int:
        """The number of repeats of each workload."""
        return max((len(repeats) for by_system in self.repeats.values() for repeats in by_system.values()), default=0)

    @property
    def figures(self) -> dict[str, dict[str, dict[str, float]]]:
        """The medians, by workload, figure and system."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for workload, by_system in self.repeats.items():
            for system, repeats in by_system.items():
                for figure in dict.fromkeys(name for repeat in repeats for name in repeat.figures):
                    values = self._values(workload, system, figure)
                    found.setdefault(workload, {}).setdefault(figure, {})[system] = median(values)
        return found

    @property
    def faults(self) -> list[str]:
        return [
            f"{workload}, {system}: {fault}"
            for workload, by_system in self.repeats.items()
            for system, repeats in by_system.items()
            for repeat in repeats
            for fault in repeat.faults
        ]

    @property
    def noise_cores(self) -> float:
        """The largest number of cores that other processes used during a measurement."""
        return max((max(by.get("others_cores", {0: 0.0}).values()) for by in self.figures.values()), default=0.0)

    def markdown(self) -> str:
        """Return a table: for one system the medians and ranges, for several the medians and the first one's ratio."""
        alone = len(self.systems) == 1
        titles = (self.systems[0], "lowest", "highest") if alone else (*self.systems, "ratio")
        lines = [
            f"{os.cpu_count()} cores, Python {platform.python_version()}, {self.redis_server}; "
            f"medians of {self.count}; load average before: {self.load_average:.2f}; "
            f"others used up to {self.noise_cores:.2f} cores",
            "",
            f"| workload | figure | {' | '.join(titles)} |",
            f"|---|---|{'---:|' * len(titles)}",
        ]
        for workload, figures in self.figures.items():
            for figure, by_system in figures.items():
                cells = self._spread(workload, figure) if alone else _compared(self.systems, figure, by_system)
                lines.append(f"| {workload} | {figure} | {' | '.join(cells)} |")
        if self.faults:
            lines += ["", "**Faults:**", "", *(f"- {fault}" for fault in self.faults)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "load_average": self.load_average},
            "python": platform.python_version(),
            "redis": self.redis_server,
            "noise_cores": self.noise_cores,
            "systems": self.systems,
            "count": self.count,
            "figures": self.figures,
            "faults": self.faults,
            "repeats": self.repeats,
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2) + b"\n")

    def _values(self, workload: str, system: str, figure: str) -> list[float]:
        return [repeat.figures[figure] for repeat in self.repeats[workload][system] if figure in repeat.figures]

    def _spread(self, workload: str, figure: str) -> list[str]:
        values = self._values(workload, self.systems[0], figure)
        return [number(value) for value in (median(values), min(values), max(values))]


def ratio(figure: str, ours: float, theirs: float) -> float | None:
    """Return the factor by which ours is better, or None for a figure that is not compared."""
    if figure.endswith(_NO_COMPARISON) or not ours or not theirs:
        return None
    return ours / theirs if figure.endswith(_MORE_IS_BETTER) else theirs / ours


def number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _compared(systems: Sequence[str], figure: str, by_system: dict[str, float]) -> list[str]:
    cells = [number(by_system[system]) if system in by_system else "–" for system in systems]
    ours, theirs = (by_system.get(system, 0.0) for system in systems[:2])
    better = ratio(figure, ours, theirs)
    return [*cells, "" if better is None else f"× {number(better)}"]
