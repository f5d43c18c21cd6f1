"""Hold who has found which fault, and write it as a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.mutants.mutant import Mutant


class Found(NamedTuple):
    """Tell who has found a fault: where, or '' for nobody."""

    what: str
    tests: str
    simulation: str
    spec: str

    @property
    def row(self) -> str:
        return f"| {self.what} | {' | '.join(_code(place) if place else '–' for place in self[1:])} |"


class Results:
    """Hold what was found, in a file if one is given: a run that was broken off is continued with it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        kept = json.loads(path.read_text()) if path is not None and path.exists() else {}
        self._found: dict[str, Found] = {key: Found(*each) for key, each in kept.items()}

    def has(self, mutant: Mutant) -> bool:
        return _key(mutant) in self._found

    def of(self, mutant: Mutant) -> Found:
        return self._found[_key(mutant)]

    def add(self, mutant: Mutant, found: Found) -> None:
        """Keep and print what was found."""
        self._found[_key(mutant)] = found
        print(found.row, flush=True)
        if self._path is not None:
            self._path.write_text(json.dumps(self._found, indent=1))


def table(found: Sequence[Found], seeds: int) -> str:
    """Return the page's part about mutants."""
    counts = [sum(bool(each[index]) for each in found) for index in (1, 2, 3)]
    together = sum(any(each[1:]) for each in found)
    head = (
        f"Of {len(found)} faults the tests find {counts[0]}, {seeds} seeds of the simulation {counts[1]}, the\n"
        f"specification {counts[2]}, and all of them together {together}.\n\n"
        "| fault | tests | simulation | specification |\n|---|---|---|---|\n"
    )
    return head + "\n".join(each.row for each in found) + "\n"


def _code(place: str) -> str:
    """Return the module of the first test that has failed, which is short enough for a table, or what else found it."""
    module, separator, _ = place.partition("::")
    return f"`{module}`" if separator else place


def _key(mutant: Mutant) -> str:
    """Return what changes when the fault does."""
    return hashlib.sha256("\0".join(mutant).encode()).hexdigest()[:16]
