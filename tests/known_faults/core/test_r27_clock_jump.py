"""The clock of Redis's machine is the clock of every limit, and it may be set forward while requests run.

A script cannot tell a step from time that has passed, as Redis shows it no other clock. So each shard keeps how far its
clock has stepped, which living replicas correct by their monotonic clocks with each heartbeat.
"""

from __future__ import annotations

import pytest

from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.conftest import MakeStore
from tests.joining import join
from tests.known_faults.core import writes

_DEADLINE_SECS = 1800.0
_STEP_SECS = 3600.0


@pytest.mark.leaves_inflight
async def test_a_step_of_the_clock_ends_no_request_by_its_deadline(store: Store, make_store: MakeStore) -> None:
    await join(store, "f1", Role.FRONTEND)
    await writes.admit(store, "r1", "f1", deadline_secs=_DEADLINE_SECS)
    later = make_store(clock_shift_secs=_STEP_SECS)

    await later.sweep(0)
    assert await _ended(store) == "", "before any heartbeat"
    await later.heartbeat("f1", Role.FRONTEND, {}, [])
    await later.reconcile_shard(0, "f1", Role.FRONTEND, elapsed_secs=1.0)
    await later.sweep(0)
    assert await _ended(store) == "", "after a heartbeat"

    much_later = make_store(clock_shift_secs=_STEP_SECS + _DEADLINE_SECS + 1)
    await much_later.reconcile_shard(0, "f1", Role.FRONTEND, elapsed_secs=_DEADLINE_SECS + 1)
    await much_later.sweep(0)
    assert await _ended(store) == "deadline"


async def _ended(store: Store) -> str:
    record = await store.read("r1")
    assert record is not None
    return str(record.error_type) if record.status.terminal else ""
