"""Say what a soak has done and what came of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.chaos.audit.history import History
from tests.chaos.audit.report import lines_of


@dataclass
class Report:
    """`faults` are all in the bag. `outcomes` are the clients', by kind; recovery times include the fault itself."""

    deployment: str
    seed: int
    secs: float
    took_secs: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    recovery_secs: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # the longest, by kind
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    polls: int = 0
    violations: list[str] = field(default_factory=list)
    history: History = field(default_factory=History)

    def __str__(self) -> str:
        longest = max(self.recovery_secs.values(), default=0.0)
        lines = [
            f"{self.deployment}, seed {self.seed}: {self.faults.total()} faults in {self.took_secs:.0f} s, "
            f"{self.outcomes.total()} requests, {len(self.history.calls)} calls, longest recovery {longest:.1f} s, "
            f"{len(self.violations)} violations",
            "",
            f"{self.polls} checks of every invariant",
            "faults:",
        ]
        lines += [
            f"  {n:4} {kind:34} " + (f"recovered within {self.recovery_secs[kind]:.1f} s" if n else "not drawn")
            for kind, n in sorted(self.faults.items())
        ]
        lines += ["", *lines_of(self.history, self.outcomes, self.violations)]
        return "\n".join(lines)
