"""The weakenings of `python -m tests.chaos.naive` still apply, and the tests that must notice them exist."""

from __future__ import annotations

import importlib

import pytest

from lifecycle.store import script_loader
from tests.chaos.naive import CONTROL, WEAKENINGS, Weakening


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.what.partition(":")[0])
def test_a_weakening_applies_and_has_its_tests(weakening: Weakening) -> None:
    """A name that pytest does not find would end the run, and none of the tests would show anything."""
    for name, changes in weakening.changes.items():
        source = script_loader.load(name).source
        assert [old for old, _ in changes if old not in source] == []
    for test in (CONTROL, *weakening.tests):
        file, _, name = test.partition("::")
        assert hasattr(importlib.import_module(f"tests.chaos.{file.removesuffix('.py')}"), name), test
