"""Random histories against the reference model, with the scripts on a real server."""

from __future__ import annotations

import secrets

from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from tests.conftest import connect
from tests.machine.rules import run_machine


def test_no_history_breaks_the_lifecycle(redis_url: str) -> None:
    def real_store(settings: Settings) -> Store:
        own = {"redis_url": redis_url, "namespace": f"machine-{secrets.token_hex(6)}"}
        settings = settings.model_copy(update=own)
        return Store(connect(settings), settings)

    run_machine(real_store, examples=70)
