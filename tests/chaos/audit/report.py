"""Say what a load has called, how it was answered, and what was wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.chaos.audit.history import History, Operation

_MOST_SHOWN = 50


def lines_of(history: History, outcomes: Counter[tuple[str, str]], violations: Sequence[str]) -> list[str]:
    """Return the report."""
    calls = Counter((call.operation, call.code) for call in history.calls)
    lines = [f"requests: {outcomes.total()}"]
    lines += [f"  {n:5} {kind}: {outcome}" for (kind, outcome), n in sorted(outcomes.items())]
    lines.append(f"calls: {calls.total()}")
    for operation in Operation:
        codes = {code: n for (of, code), n in sorted(calls.items()) if of is operation}
        shown = ", ".join(f"{n} × {code or 'no answer'}" for code, n in codes.items())
        if shown:
            lines.append(f"  {operation}: {shown}")
    lines.append(f"violations: {len(violations)}")
    lines += [f"  {violation}" for violation in violations[:_MOST_SHOWN]]
    if len(violations) > _MOST_SHOWN:
        lines.append(f"  and {len(violations) - _MOST_SHOWN} more")
    return lines
