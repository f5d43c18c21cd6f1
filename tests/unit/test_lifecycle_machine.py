"""Random histories against the model, on fakeredis. `tests/integration` has the same on a real server."""

from __future__ import annotations

from tests.machine.rules import run_machine
from tests.unit.fake import fake_store


def test_no_history_breaks_the_lifecycle() -> None:
    run_machine(fake_store, examples=45)
