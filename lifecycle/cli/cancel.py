"""`cancel`: an order to stop or kill requests, and on demand the wait until it is confirmed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json
from lifecycle.ids import is_request_id
from lifecycle.model import CancelMode, Request
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from lifecycle.store.scripts import Store

_FIRST_PAUSE_SECS = 0.02
_LONGEST_PAUSE_SECS = 0.5


@with_settings(OPERATOR)
def cancel(
    settings: Settings,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The requests.")],
    mode: Annotated[
        CancelMode, typer.Option(help="kill: end now. stop: deliver what is there, produce no more.")
    ] = CancelMode.KILL,
    reason: Annotated[str, typer.Option(help="What its client is told.")] = "Cancelled by an operator",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the worker has confirmed it.")] = False,
    timeout_secs: Annotated[float, typer.Option(help="How long --wait waits.", min=0, max=86_400)] = 30.0,
    json: Json = False,
) -> int:
    """Cancel requests. Exits 1 when one is unknown, or with --wait not confirmed in time."""
    from lifecycle.cli.operate import operate

    async def work(store: Store) -> int:
        wait_secs = timeout_secs if wait else 0.0
        rids = list(dict.fromkeys(ids))
        records = await asyncio.gather(*(_cancel(store, rid, mode, reason, wait_secs) for rid in rids))
        unknown = [rid for rid, record in zip(rids, records, strict=True) if record is None]
        known = [record for record in records if record is not None]
        if json:
            output.write_json({"object": "list", "data": [r.to_json() for r in known], "unknown": unknown})
        else:
            for record in known:
                output.write(f"{record.id}  {_outcome(record)}")
            for rid in unknown:
                output.complain(f"{rid}: unknown or expired")
        unconfirmed = wait and not all(record.status.terminal for record in known)
        return 1 if unknown or unconfirmed else 0

    return operate(settings, work)


async def _cancel(store: Store, rid: str, mode: CancelMode, reason: str, wait_secs: float) -> Request | None:
    """The record as it is then; None when unknown."""
    cancellation = await store.cancel(rid, mode, reason, patience_secs=1.0) if is_request_id(rid) else None
    if cancellation is None:
        return None
    record: Request | None = cancellation.record
    give_up_at, pause = time.monotonic() + wait_secs, _FIRST_PAUSE_SECS
    while record is not None and not record.status.terminal and time.monotonic() < give_up_at:
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECS)
        record = await store.read(rid, patience_secs=1.0)
    return record


def _outcome(record: Request) -> str:
    if not record.status.terminal:
        return output.paint(f"{record.cancel_mode} ordered, not confirmed yet", output.YELLOW)
    return output.paint(record.status, output.STATUS_COLORS[record.status])
