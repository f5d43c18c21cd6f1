"""Define a workload's size and its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Effort:
    """`FULL` for figures, `QUICK` for a look, `TINY` to see that it works."""

    largest: int  # no workload is larger, whatever its name says
    lead_secs: float  # until all is under way and nothing of the start is measured
    secs: float  # measured
    trials: int  # of each latency
    standing_secs: float  # of what goes on while nothing does: several heartbeats and sweeps
    settle_secs: float  # until memory is what it will be
    profiles: Path | None = None  # where profiles go, if any are taken


FULL = Effort(1_000_000, 1.5, 4.0, 500, 8.0, 1.0)
QUICK = Effort(1_000_000, 2.0, 3.0, 50, 6.0, 1.0)
TINY = Effort(3, 0.2, 0.2, 2, 0.2, 0.1)


@dataclass(slots=True)
class Measurement:
    """`figures` go into the table, units last in their names; `faults` should be empty; `details` are for the JSON."""

    figures: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
