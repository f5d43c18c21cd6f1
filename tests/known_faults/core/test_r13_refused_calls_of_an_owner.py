"""An owner has as many requests inflight as it may, and goes on calling.

For each call that is refused, its frontend looks at every request of the owner: one client keeps Redis busy with calls
that lead to nothing, the more so the higher its limit is. Expected: a refused call costs Redis little.
"""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.tracking.admission import Rejected
from lifecycle.types import Limits, OnDisconnect
from tests.known_faults.core.kit import LABELS, bytes_moved
from tests.known_faults.core.replicas import BODY, frontend, quick_settings

_LIMIT = 500
_CALLS = 50
_BYTES_PER_CALL = 5_000  # with one look at every request among them; each look moves more than 30,000


def _call(rid: str) -> AdmissionRequest:
    return AdmissionRequest(
        rid, LABELS, BODY, OnDisconnect.CONTINUE, 0.0, Limits(), owner="acme", inflight_limit=_LIMIT
    )


async def test_a_call_above_its_owners_limit_costs_redis_little() -> None:
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(
            server.url, queue_without_workers=True, lease_secs=600.0, heartbeat_secs=60.0, sweep_secs=60.0
        )
        async with frontend(settings) as tracker:
            admitted = await asyncio.gather(*(tracker.admit(_call(f"r{number}")) for number in range(_LIMIT)))
            before = bytes_moved(server)

            for number in range(_CALLS):
                with pytest.raises(Rejected, match="limit"):
                    await tracker.admit(_call(f"refused{number}"))

            assert len(admitted) == _LIMIT  # kept: an admission that is forgotten is a disconnect
            assert bytes_moved(server) - before <= _CALLS * _BYTES_PER_CALL
