"""Several runs of the same workloads as one table, and as JSON with all there is."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Row:
    workload: str
    figure: str
    values: Sequence[float]  # one a repeat

    @property
    def cells(self) -> tuple[str, ...]:
        shown = [_number(n) for n in (median(self.values), min(self.values), max(self.values))]
        return self.workload, self.figure, *shown


@dataclass(frozen=True, slots=True)
class Report:
    system: str
    measurements: dict[str, list[Measurement]]  # by workload, one a repeat
    load_average: float  # of the machine, before anything was started

    @property
    def rows(self) -> list[Row]:
        return [
            Row(workload, figure, [repeat.figures[figure] for repeat in repeats if figure in repeat.figures])
            for workload, repeats in self.measurements.items()
            for figure in repeats[0].figures
        ]

    @property
    def faults(self) -> list[str]:
        return [
            f"{workload}: {fault}"
            for workload, repeats in self.measurements.items()
            for repeat in repeats
            for fault in repeat.faults
        ]

    def markdown(self) -> str:
        repeats = max((len(runs) for runs in self.measurements.values()), default=0)
        lines = [
            f"{self.system}: {os.cpu_count()} cores, Python {platform.python_version()}, {repeats} repeats; "
            f"load average before: {self.load_average:.2f}",
            "",
            "| workload | figure | median | lowest | highest |",
            "|---|---|---:|---:|---:|",
            *("| " + " | ".join(row.cells) + " |" for row in self.rows),
        ]
        if self.faults:
            lines += ["", "**Faults:**", "", *(f"- {fault}" for fault in self.faults)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "load_average": self.load_average},
            "python": platform.python_version(),
            "figures": {
                name: {row.figure: median(row.values) for row in self.rows if row.workload == name}
                for name in self.measurements
            },
            "faults": self.faults,
            "measurements": self.measurements,
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2) + b"\n")


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
