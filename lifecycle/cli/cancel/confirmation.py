"""Wait until cancelled requests have ended, and print the outcome of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from lifecycle.cli import output
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord

_FIRST_PAUSE_SECS = 0.02
_LONGEST_PAUSE_SECS = 0.5


async def wait_until_ended(store: Store, records: Sequence[RequestRecord], wait_secs: float) -> list[RequestRecord]:
    """Poll the records until all are terminal, at most for `wait_secs`, and return them as they are then.

    Raises StoreUnavailable when Redis is out of reach.
    """
    known = {record.id: record for record in records}
    give_up_at, pause_secs = time.monotonic() + wait_secs, _FIRST_PAUSE_SECS
    while (pending := unconfirmed(known.values())) and time.monotonic() < give_up_at:
        await asyncio.sleep(pause_secs)
        pause_secs = min(pause_secs * 1.5, _LONGEST_PAUSE_SECS)
        polled = await asyncio.gather(*(store.read(record.id, retry_for_secs=1.0) for record in pending))
        known |= {record.id: record for record in polled if record is not None}
    return list(known.values())


def unconfirmed(records: Iterable[RequestRecord]) -> list[RequestRecord]:
    """Return the records that are not terminal yet."""
    return [record for record in records if not record.status.terminal]


def write_outcomes(records: Sequence[RequestRecord]) -> None:
    """Print one line for each request: its id and its status, or that the cancellation is not confirmed yet."""
    for record in records:
        output.write(f"{record.id}  {_outcome(record)}")


def _outcome(record: RequestRecord) -> str:
    if not record.status.terminal:
        return output.paint(f"{record.cancel_mode} requested, not confirmed yet", output.YELLOW)
    return output.paint(record.status, output.STATUS_COLORS[record.status])
