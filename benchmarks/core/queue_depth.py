"""Count the commands by which an admission reads the depth of its model's queue, which lies in many shards."""

from __future__ import annotations

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.store.connect import open_store
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.tracking.queue_limit import QueueLimit
from lifecycle.types import Limits, OnDisconnect

_LIMIT = 10
_REQUEST = AdmissionRequest("r", bench.LABELS, b"{}", OnDisconnect.CANCEL, 0.0, Limits())
_QUESTIONS = 3  # each counts as an admission, and three do not fill a short queue by half


async def measure(quick: bool) -> list[Table]:
    """Ask for the depth of a queue that is short, and of one that holds more than half of its limit."""
    table = Table(
        "HGET commands of one admission",
        ("shards", "short queue", "more than half full"),
        note="The depth of a short queue is remembered for 0.1 s.",
    )
    with bench.server() as redis:
        for shards in (4,) if quick else (16, 64):
            chosen = bench.settings_for(redis.url, shards=shards, queue_limit=_LIMIT, namespace=f"shards-{shards}")
            async with open_store(chosen) as store:
                counted: list[float] = []
                for waiting in (0, _LIMIT // 2 + 1):
                    backlog = QueueLimit(store)  # one that remembers no depth
                    await bench.admit_all(store, [f"r{number}" for number in range(waiting)])
                    await backlog.refusal(_REQUEST)
                    bench.reset_counters(redis)
                    for _ in range(_QUESTIONS):
                        await backlog.refusal(_REQUEST)
                    counted.append(bench.calls_of(redis).get("hget", 0) / _QUESTIONS)
                table.add(str(shards), *counted)
    return [table]
