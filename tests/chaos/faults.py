"""The fault matrix: what each test breaks, what is promised then, and how long the healing took.

    @pytest.mark.fault("kill -9 of a worker, mid-stream", "error frame `worker_lost`, `[DONE]`, counts right")
    async def test_…(…, healing: Healing) -> None:
        ...
        healing.begins()
        ...
        healing.is_over()

`python -m pytest tests/chaos --faults-table docs/faults.md` writes the table between the two comments in that file.
What was not run keeps the time it had.
"""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
MARKER = "fault(what, promise): what the test breaks and what is promised then; a row of docs/faults.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
_HEAD = "| fault | promise | test | healed in |\n|---|---|---|---|\n"
_UNMEASURED = "–"
_measured: dict[str, float] = {}  # by test; of a parametrized one the worst


class Fault(NamedTuple):
    """One row, but for the time."""

    what: str
    promise: str
    test: str  # test_workers.py::test_…


class Healing:
    """Of one test: from the fault to the moment when everything promised has come true."""

    def __init__(self, test: str) -> None:
        self._test = test
        self._began_at: float | None = None

    def begins(self) -> None:
        self._began_at = time.monotonic()

    def is_over(self) -> None:
        """Repeated, the longest counts."""
        assert self._began_at is not None, "healing.begins() comes with the fault"
        took_secs = time.monotonic() - self._began_at
        _measured[self._test] = max(took_secs, _measured.get(self._test, 0.0))


def declared() -> list[Fault]:
    """Every marked test of this folder, in the order of the files; read, not imported."""
    found: list[Fault] = []
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                        what, promise = (ast.literal_eval(argument) for argument in mark.args)
                        found.append(Fault(what, promise, f"{path.name}::{node.name}"))
    return found


def shown(text: str) -> dict[str, tuple[Fault, str]]:
    """The rows of the table in this text, by test, with the time."""
    between = text.partition(BEGIN)[2].partition(END)[0]
    rows: dict[str, tuple[Fault, str]] = {}
    for line in between.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)][1:-1]
        if len(cells) == 4 and "::" in cells[2]:
            test = cells[2].strip("`")
            rows[test] = (Fault(cells[0], cells[1], test), cells[3])
    return rows


def write(path: Path) -> None:
    text = path.read_text()
    before = shown(text)
    rows = []
    for fault in declared():
        secs = _measured.get(fault.test)
        known = before[fault.test][1] if fault.test in before else _UNMEASURED
        rows.append(
            f"| {fault.what} | {fault.promise} | `{fault.test}` | {known if secs is None else _words(secs)} |\n"
        )
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n{_HEAD}{''.join(rows)}{END}{tail}")


def _words(secs: float) -> str:
    return f"{secs * 1000:.0f} ms" if secs < 0.9995 else f"{secs:.1f} s"
