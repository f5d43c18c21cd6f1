"""docs/reference says what the code says, and every word of it has been explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.errors import ERROR_RESPONSES
from lifecycle.settings import Settings, environment_name
from lifecycle.store.keys import CONTROL_KEYS, SHARD_KEYS
from tests import reference
from tests.reference import errors


@pytest.mark.parametrize("path", reference.pages(), ids=lambda path: path.stem)
def test_a_page_says_what_the_code_says(path: Path) -> None:
    page = path.read_text()
    assert reference.filled(page) == page, "to be written again: python -m tests.reference"


def test_every_part_is_on_a_page_once() -> None:
    shown = [name for path in reference.pages() for name in reference.named(path.read_text())]
    assert sorted(shown) == sorted(reference.PARTS)


def test_every_setting_and_key_is_in_a_group() -> None:
    """Every declared setting and Redis key is shown, even if the comments that group them change."""
    shown = reference.PARTS["settings"]()
    assert [name for name in Settings.model_fields if f"| `{environment_name(name)}` |" not in shown] == []
    keys = reference.PARTS["keys of a shard"]() + reference.PARTS["control keys"]()
    marks = ("| `", "| <code>")  # a name with a vertical bar needs the second
    missing = [key.name for key in (*SHARD_KEYS, *CONTROL_KEYS) if not any(mark + key.name in keys for mark in marks)]
    assert missing == []


def test_no_explanation_is_left_over() -> None:
    """A missing explanation is a KeyError in the tests above."""
    assert set(errors.CODES) == {name for name, _, _ in errors.raised()}
    assert set(errors.TYPES) == set(ERROR_RESPONSES)
