"""Cancel the requests that were named by id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lifecycle.cli import output
from lifecycle.cli.cancel.confirmation import unconfirmed, wait_until_ended, write_outcomes
from lifecycle.ids import is_request_id
from lifecycle.store.transitions import Store
from lifecycle.types import OPERATOR_CLI, CancelMode, RequestRecord


async def cancel_ids(
    store: Store, ids: Sequence[str], mode: CancelMode, reason: str, wait_secs: float | None, *, json: bool
) -> int:
    """Cancel each request once and print its outcome. Return 1 if one is unknown or unconfirmed.

    `wait_secs` is None when nobody waits for the confirmation; the result then says nothing about it.

    Raises StoreUnavailable when Redis is out of reach.
    """
    rids = list(dict.fromkeys(ids))
    answers = await asyncio.gather(*(_cancel(store, rid, mode, reason) for rid in rids))
    unknown = [rid for rid, record in zip(rids, answers, strict=True) if record is None]
    known = await wait_until_ended(store, [record for record in answers if record is not None], wait_secs or 0.0)
    if json:
        output.write_json({"object": "list", "data": [record.to_json() for record in known], "unknown": unknown})
    else:
        write_outcomes(known)
        for rid in unknown:
            output.complain(f"{rid}: no such request; it is unknown or its record has expired")
    return 1 if unknown or (wait_secs is not None and unconfirmed(known)) else 0


async def _cancel(store: Store, rid: str, mode: CancelMode, reason: str) -> RequestRecord | None:
    """Return the record as it is after the call, or None when the id is malformed or unknown."""
    cancellation = (
        await store.cancel(rid, mode, reason, by=OPERATOR_CLI, retry_for_secs=1.0) if is_request_id(rid) else None
    )
    return cancellation.record if cancellation else None
