"""What a workload brings home, and how much work it is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Effort:
    """The size of everything: `FULL` for figures, `QUICK` for a look, `TINY` to see that it works."""

    unpaced_streams: Sequence[int]
    unpaced_tokens: int
    paced_streams: int
    paced_lead_secs: float  # until the streams are under way and nothing of their start is billed
    paced_secs: float
    trials: int  # of each latency
    parked: Sequence[int]
    idle_streams: int
    warm_streams: int
    settle_secs: float


FULL = Effort((1, 32, 256), 200, 200, 3.0, 10.0, 200, (10, 1_000, 10_000), 500, 50, 2.0)
QUICK = Effort((1, 32, 256), 200, 200, 2.0, 3.0, 40, (10, 1_000), 200, 20, 1.0)
TINY = Effort((2,), 20, 3, 0.3, 0.3, 2, (3,), 4, 1, 0.1)


@dataclass(slots=True)
class Measurement:
    """`figures` go into the table, units last in their names; `faults` should be empty; `details` are for the JSON."""

    figures: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
