"""Random histories against the reference model, on fakeredis. `tests/integration` has the same on a real server."""

from __future__ import annotations

import pytest

from tests.machine.rules import run_machine
from tests.unit.fake import fake_store


@pytest.mark.slow
def test_no_history_breaks_the_lifecycle() -> None:
    run_machine(fake_store, examples=45)
