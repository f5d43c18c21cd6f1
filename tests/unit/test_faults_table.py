"""Test that docs/faults.md and the marks of the tests in tests/chaos agree."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.chaos import faults

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "faults.md"


def test_the_page_lists_exactly_the_declared_faults() -> None:
    """Write the entries with `python -m pytest tests/chaos --faults-table docs/faults.md`, or a part of these tests."""
    entries = [fault for fault, _ in faults.shown(DOCUMENT.read_text()).values()]
    assert entries == faults.declared()


def test_no_fault_is_declared_twice() -> None:
    whats = [fault.what for fault in faults.declared()]
    assert len(whats) == len(set(whats))


def test_every_fault_and_every_promise_is_a_sentence() -> None:
    texts = [text for fault in faults.declared() for text in (fault.what, fault.promise)]
    assert [text for text in texts if not text[0].isupper() and not text[0].isdigit() and text[0] != "`"] == []
    assert [text for text in texts if not text.endswith(".")] == []


def test_a_test_that_was_not_run_keeps_its_recovery_time(tmp_path: Path) -> None:
    path = tmp_path / "faults.md"
    path.write_text(f"before\n{faults.BEGIN}\n{faults.END}\nafter\n")
    faults.write(path)
    assert list(faults.shown(path.read_text())) == [fault.test for fault in faults.declared()]
    path.write_text(path.read_text().replace(faults.UNMEASURED, "1.5 s"))
    before = faults.shown(path.read_text())
    faults.write(path)
    assert faults.shown(path.read_text()) == before
    assert path.read_text().startswith("before\n")
    assert path.read_text().endswith("after\n")


def test_a_renamed_test_keeps_its_recovery_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_measured", {})  # as if the test of that fault had not run in this process
    path = tmp_path / "faults.md"
    first = faults.declared()[0]
    path.write_text(f"{faults.BEGIN}\n{faults.END}\n")
    faults.write(path)
    name = first.test.partition("::")[2]
    path.write_text(path.read_text().replace(f"not measured (`{name}`)", "7 ms (`test_of_another_name`)"))
    faults.write(path)
    assert faults.shown(path.read_text())[first.test][1] == "7 ms"


def test_the_tests_of_known_faults_exist_and_are_complete() -> None:
    table = (ROOT / "tests" / "known_faults" / "README.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)`", table)
    assert [name for name in named if not (ROOT / name).is_file()] == []
    own = (ROOT / "tests" / "known_faults").glob("*/test_*.py")
    assert {os.fspath(path.relative_to(ROOT)) for path in own} - set(named) == set()
    numbers = {f"r{number:02}" for number in range(1, 31)} - {"r17"}
    assert numbers - set(re.findall(r"\br\d\d\b", "".join(re.findall(r"(?m)^\| (r[^|]+)", table)))) == set()
