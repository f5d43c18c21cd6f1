"""The style guide as a test: types, lint, import layers, and what must not be in the files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("lifecycle", "frontend", "worker")
ALL_PYTHON = (*PACKAGES, "tests", "benchmarks")
LONGEST_FILE = 400

SLOW = (pytest.mark.slow, pytest.mark.timeout(300))
TYPED_EXAMPLES = ("examples/agent.py", "examples/autoscale.py", "examples/whole_surface.py")


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        pytest.param(["mypy"], marks=SLOW, id="mypy"),  # a minute without its cache
        pytest.param(["mypy", "--strict", *TYPED_EXAMPLES], marks=SLOW, id="mypy of examples"),
        ["lint-imports", "--no-cache"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_tools_find_nothing(command: list[str]) -> None:
    tool = Path(sys.executable).parent / command[0]
    run = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def _sources(packages: Sequence[str] = PACKAGES) -> list[Path]:
    return [path for package in packages for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".lua")]


def test_no_file_is_too_long() -> None:
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in _sources(ALL_PYTHON)}
    assert not {path: count for path, count in lines.items() if count > LONGEST_FILE}


def test_nothing_is_left_open_or_switched_off() -> None:
    marks = re.compile(r"TODO|FIXME|XXX|NotImplementedError")
    found = [
        f"{p.relative_to(ROOT)}:{n}"
        for p in _sources()
        for n, line in enumerate(p.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


def test_text_files_are_read_and_written_as_utf_8() -> None:
    """Without an encoding, Python uses that of the locale, which containers and cron often do not set."""
    unnamed = re.compile(r"\.read_text\(\)|\.write_text\((?!.*(encoding|utf-8))|\bopen\((?!.*(encoding=|b\"))")
    found = [
        f"{p.relative_to(ROOT)}:{n}: {line.strip()}"
        for p in _sources()
        for n, line in enumerate(p.read_text("utf-8").splitlines(), 1)
        if p.suffix == ".py" and unnamed.search(line) and ".open(" not in line and "def open" not in line
    ]
    assert not found


def test_no_task_is_fired_and_forgotten() -> None:
    """A task that is created must be kept by somebody: assigned, collected or handed on."""
    forgotten = re.compile(r"^\s*(asyncio\.create_task|loop\.create_task|asyncio\.ensure_future)\(")
    found = [
        f"{p.relative_to(ROOT)}:{n}"
        for p in _sources()
        for n, line in enumerate(p.read_text().splitlines(), 1)
        if forgotten.search(line)
    ]
    assert not found


def test_the_client_library_is_given_no_retries() -> None:
    """An implicit retry executes a write twice; every repetition must be ours. Clients are made in two places."""
    makes = re.compile(r"\bRedis(\.from_url|\.from_pool|\()|\bcast\(Any, Sentinel\)")
    found = sorted(str(p.relative_to(ROOT)) for p in _sources() if makes.search(p.read_text()))
    assert found == ["lifecycle/store/redis.py", "lifecycle/store/sentinel.py"]
