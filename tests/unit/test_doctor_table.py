"""Test that docs/cli.md lists every check of `doctor`, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_check_is_documented() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "lifecycle" / "cli" / "doctor").glob("*.py"))
    made = set(re.findall(r'\b(?:ok|warn|fail|\(warn if [^()]+ else fail\))\(\s*"([a-z]+)"', sources))
    made = made - {"queues"} | {"frontends", "workers", "queue MODEL"}  # named when they are found
    table = (ROOT / "docs" / "cli.md").read_text().partition("## What `doctor` checks")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([^`]+)`", " ".join(cells))) == made
