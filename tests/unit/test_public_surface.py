"""The public surface is what tests/unit/public_surface.txt says. Whoever changes it tells users, in the changelog."""

from __future__ import annotations

import re
from pathlib import Path

import lifecycle
from tests import surface

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def test_the_surface_is_the_one_that_was_agreed() -> None:
    written = surface.FILE.read_text("utf-8")
    assert surface.text() == written, (
        "the public surface differs from tests/unit/public_surface.txt: if that is meant, run "
        "`python -m tests.surface`, and add a line to CHANGELOG.md"
    )


def test_the_changelog_names_each_public_name() -> None:
    named = set(re.findall(r"`(?:lifecycle\.)?(\w+)", CHANGELOG.read_text("utf-8")))
    assert {name for name in lifecycle.__all__ if not name.startswith("__")} <= named


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name, documented in surface.docstrings() if not documented] == []
