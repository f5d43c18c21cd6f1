"""Every fault that `python -m tests.mutants` plants still applies to the product, and has tests that can see it."""

from __future__ import annotations

import pytest

from tests.mutants import selection
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import ROOT, Mutant
from tests.spec.planted import FAULTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what.replace(" ", "-"))
def test_a_mutant_applies(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert mutant.applied(text) != text
    assert not mutant.spec or mutant.spec in FAULTS
    named = [*selection.fast(mutant), *selection.slow(mutant)]
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_there_are_enough_mutants_under_names_of_their_own() -> None:
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS) >= 25
