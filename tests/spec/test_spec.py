"""The specification: every state of its worlds is right, and a fault that is planted in it is found."""

from __future__ import annotations

import pytest

from tests.spec import scripts
from tests.spec.explore import Explorer
from tests.spec.life import Size
from tests.spec.planted import FAULTS, explore_with
from tests.spec.record import CANCELLED, COMPLETED, FAILED, RUNNING, Record, Start, Token
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


@pytest.mark.parametrize("status", [COMPLETED, FAILED, CANCELLED])
@pytest.mark.parametrize("there", [0, 1])
def test_last_tokens_are_not_appended_behind_a_hole(status: str, there: int) -> None:
    """Redis has lost the second token, and the worker brings the third and the fourth with the end."""
    start = Start(1, "nonce", None)
    text = tuple(Token(number, start) for number in range(1, there + 1))
    before = Record(RUNNING, worker="w", starts=(start,), text=text)
    after, answer = scripts.finish(before, "w", start, status, last=4, remainder=2)
    assert after.text == text
    assert (after.status, answer) == ((RUNNING, "incomplete") if status == COMPLETED else (status, "done"))
