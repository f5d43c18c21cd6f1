"""docs/faults.md and the tests of tests/chaos say the same."""

from __future__ import annotations

from pathlib import Path

from tests.chaos import faults

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"


def test_every_fault_is_in_the_table_and_every_test_named_there_exists() -> None:
    """If not: `python -m pytest tests/chaos --faults-table docs/faults.md`, or only the new tests of it."""
    rows = [fault for fault, _ in faults.shown(DOCUMENT.read_text()).values()]
    assert rows == faults.declared()


def test_no_fault_is_declared_twice() -> None:
    whats = [fault.what for fault in faults.declared()]
    assert len(whats) == len(set(whats))


def test_what_was_not_run_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "faults.md"
    path.write_text(f"before\n{faults.BEGIN}\n{faults.END}\nafter\n")
    faults.write(path)
    rows = faults.shown(path.read_text())
    assert list(rows) == [fault.test for fault in faults.declared()]
    path.write_text(path.read_text().replace("| – |", "| 1.5 s |"))
    faults.write(path)
    times = {test: time for test, (_, time) in faults.shown(path.read_text()).items()}
    assert times == {test: faults.shown(path.read_text())[test][1] for test in rows}
    assert path.read_text().startswith("before\n")
    assert path.read_text().endswith("after\n")
