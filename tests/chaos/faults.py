"""Keep the fault matrix: the fault of each test, the expected result, and the measured recovery time.

    @pytest.mark.fault("A worker is killed (`kill -9`) mid-stream.", "Its client receives an error frame.")
    async def test_…(…, healing: Healing) -> None:
        ...
        healing.begins()
        ...
        healing.is_over()

`python -m pytest tests/chaos --faults-table docs/faults.md` writes the entries between the two comments in that file.
An entry whose test was not run keeps its recovery time.
"""

from __future__ import annotations

import ast
import re
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
MARKER = "fault(what, promise): the fault and the expected result, both in sentences; an entry of docs/faults.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
TITLES = {
    "test_clients.py": "Clients",
    "test_connections.py": "Connections",
    "test_draining.py": "Draining",
    "test_frontends.py": "Frontends",
    "test_full_memory.py": "Redis is full",
    "test_garbage.py": "Invalid data",
    "test_lost_writes.py": "Lost writes",
    "test_network.py": "Network",
    "test_redis_away.py": "Redis is unavailable",
    "test_redis_cluster.py": "Redis Cluster",
    "test_redis_commands.py": "Redis administration",
    "test_redis_loss.py": "Redis restarts and data loss",
    "test_refused_calls.py": "Refused calls",
    "test_sentinel.py": "Sentinel",
    "test_webhooks.py": "Webhooks",
    "test_workers.py": "Workers",
}
UNMEASURED = "not measured"
_WIDTH = 100
_SECTION = re.compile(r"^### .*?`tests/chaos/(test_\w+\.py)`(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"- \*\*(.+?)\*\* (.+?) Recovery time: ([^()]+) \(`(test_\w+)`\)\.")
_measured: dict[str, float] = {}  # seconds by test; the maximum of a parametrized test


class Fault(NamedTuple):
    """One entry without its recovery time; `test` is `test_workers.py::test_…`."""

    what: str
    promise: str
    test: str


class Healing:
    """Measure one test's recovery: from the fault until the expected result is complete."""

    def __init__(self, test: str) -> None:
        self._test = test
        self._began_at: float | None = None

    def begins(self) -> None:
        """Start the measurement. Called right before the fault."""
        self._began_at = time.monotonic()

    def is_over(self) -> None:
        """Record the time since `begins()`. When called several times, the maximum counts."""
        assert self._began_at is not None, "call healing.begins() before the fault"
        took_secs = time.monotonic() - self._began_at
        _measured[self._test] = max(took_secs, _measured.get(self._test, 0.0))


def declared() -> list[Fault]:
    """Return the fault of every marked test of this folder, in the order of the files, without importing them."""
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
    """Return the entries of a page, by test, each with its recovery time."""
    between = text.partition(BEGIN)[2].partition(END)[0]
    entries: dict[str, tuple[Fault, str]] = {}
    for file, section in _SECTION.findall(between):
        for what, promise, took, name in _ENTRY.findall(" ".join(section.split())):
            test = f"{file}::{name}"
            entries[test] = (Fault(what, promise, test), took)
    return entries


def write(path: Path) -> None:
    """Write the entries of all declared faults into a page. A renamed test keeps the time of the same fault."""
    text = path.read_text()
    before = shown(text)
    times = {fault.what: took for fault, took in before.values()} | {test: took for test, (_, took) in before.items()}
    parts: list[str] = []
    file = ""
    for fault in declared():
        if not fault.test.startswith(file + "::"):
            file = fault.test.partition("::")[0]
            parts.append(f"\n### {TITLES[file]}\n\nThe tests are in `tests/chaos/{file}`.\n\n")
        secs = _measured.get(fault.test)
        took = times.get(fault.test, times.get(fault.what, UNMEASURED)) if secs is None else _duration(secs)
        parts.append(_entry(fault, took))
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n{''.join(parts)}\n{END}{tail}")


def _entry(fault: Fault, took: str) -> str:
    name = fault.test.partition("::")[2]
    text = f"- **{fault.what}** {fault.promise} Recovery time: {took} (`{name}`)."
    text = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), text)  # keep code on one line
    lines = textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ") + "\n"


def _duration(secs: float) -> str:
    return f"{secs * 1000:.0f} ms" if secs < 0.9995 else f"{secs:.1f} s"
