"""The clock of Redis's machine is the clock of every limit, and it may be set forward while requests run.

A script cannot tell a step from time that has passed, as Redis shows it no other clock. A shard would have to keep an
offset between its clock and one that never steps, which living replicas correct by their monotonic clocks.

Leases are guarded against a step, limits are not: a step of an hour ends every request with a shorter deadline at once.
Expected: a request ends by its deadline when so much time has passed, whatever the clock says.
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
@pytest.mark.xfail(strict=True, reason="r27: a deadline is a time by the wall clock of Redis's machine.")
async def test_a_step_of_the_clock_ends_no_request_by_its_deadline(store: Store, make_store: MakeStore) -> None:
    await join(store, "f1", Role.FRONTEND, {}, [])
    await writes.admit(store, "r1", "f1", deadline_secs=_DEADLINE_SECS)
    later = make_store(clock_shift_secs=_STEP_SECS)
    await later.heartbeat("f1", Role.FRONTEND, {}, [])
    await later.roster()

    await later.sweep(0)

    record = await store.read("r1")
    assert record is not None
    assert not record.status.terminal, f"{record.error_type}: {record.error_message}"
