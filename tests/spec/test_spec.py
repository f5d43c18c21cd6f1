"""The specification: every state of its worlds is right, and a fault that is planted in it is found."""

from __future__ import annotations

import pytest

from tests.spec.explore import Explorer
from tests.spec.life import Size
from tests.spec.planted import FAULTS, explore_with
from tests.spec.sizes import QUICK


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", QUICK.values(), ids=[name.replace(" ", "-") for name in QUICK])
def test_nothing_is_violated(size: Size) -> None:
    found = Explorer(size).run()
    assert not found.violation, "\n".join([found.violation, *found.story])
    assert found.states > 1000


@pytest.mark.slow
@pytest.mark.parametrize("what", FAULTS, ids=lambda what: what.replace(" ", "-"))
def test_a_planted_fault_is_found(what: str) -> None:
    assert explore_with(FAULTS[what]).startswith("VIOLATED")
