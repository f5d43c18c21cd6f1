"""All replicas of a cluster must run with the same common settings; one with another value is refused.

Where `queue_without_workers` was set on the frontends alone, any worker without it ended what they kept waiting for a
model without workers. What may wait goes on waiting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lifecycle.errors import ConfigurationConflict
from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Status
from tests.known_faults.core.replicas import MODEL, call, frontend, quick_settings, served, worker
from tests.waiting import wait_until

_NOT_COMPARED = {
    "retention_secs": 1.0,
    "max_attempts": 1,
    "queue_limit": 5,
    "sweep_secs": 9.0,
    "queue_without_workers": True,
}
_LEASES = 8  # without a worker; each replica sweeps four times in one of them, late on a busy machine


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as running:
        yield running


async def _engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    yield "a"


@pytest.mark.parametrize("setting", _NOT_COMPARED)
async def test_a_replica_with_another_common_setting_is_refused(server: EmbeddedRedis, setting: str) -> None:
    other = quick_settings(server.url, **{setting: _NOT_COMPARED[setting]})
    async with frontend(quick_settings(server.url)):
        with pytest.raises(ConfigurationConflict):
            async with frontend(other):
                pass


async def _is_judged(tracker: Tracker, rid: str) -> bool:
    """Return whether the request has ended, or its model has been without workers for long enough."""
    record = await tracker.store.read(rid)
    served_at = await tracker.store.command("ZSCORE", tracker.store.keys.control + "models", MODEL)
    without_workers_secs = await tracker.store.now() - float(served_at)
    ended = record is None or record.status.terminal
    return ended or without_workers_secs > _LEASES * tracker.settings.lease_secs


async def test_what_waits_for_a_model_without_workers_is_left_alone_by_the_worker_of_another(
    server: EmbeddedRedis,
) -> None:
    patient = quick_settings(server.url, queue_without_workers=True)
    async with frontend(patient) as tracker:
        async with worker(patient, _engine):
            await served(tracker)  # from now on the model is known
        async with worker(patient, _engine, "other"):
            await served(tracker, "other")
            flight = await tracker.admit(call("r1"))
            await wait_until(lambda: _is_judged(tracker, "r1"))
            record = await tracker.store.read("r1")
            flight.connection.close()

    assert record is not None
    assert record.status is Status.QUEUED
