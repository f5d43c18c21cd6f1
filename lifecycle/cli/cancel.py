"""`cancel`: an order to stop or kill requests, by id or by what they share, and the wait until it is confirmed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import listing, output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json, chosen, not_empty, seconds
from lifecycle.ids import is_request_id
from lifecycle.settings import Settings
from lifecycle.types import CancelMode, Endpoint, RequestRecord, Status

if TYPE_CHECKING:
    from lifecycle.queries.bulk_cancel import Cancelled, Selection
    from lifecycle.store.scripts import Store

_FIRST_PAUSE_SECS = 0.02
_LONGEST_PAUSE_SECS = 0.5
_INFLIGHT = ("inflight", Status.QUEUED, Status.RUNNING)


@with_settings(OPERATOR)
def cancel(
    settings: Settings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="The requests; or say which:")] = None,
    model: Annotated[str | None, typer.Option(help="All of this model.", callback=not_empty)] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="All of this endpoint: chat_completions, completions.", callback=chosen(*Endpoint)),
    ] = None,
    status: Annotated[
        str | None, typer.Option(help="All that are queued, running, or inflight (both).", callback=chosen(*_INFLIGHT))
    ] = None,
    frontend: Annotated[str | None, typer.Option(metavar="ID", help="All of this one.", callback=not_empty)] = None,
    worker: Annotated[str | None, typer.Option(metavar="ID", help="All that it runs.", callback=not_empty)] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="All admitted so long ago: 90s, 10m, 1h30m.", callback=seconds)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be cancelled.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most, the newest first.", min=1, max=100_000)] = 10_000,
    mode: Annotated[
        CancelMode, typer.Option(help="kill: end now. stop: deliver what is there, produce no more.")
    ] = CancelMode.KILL,
    reason: Annotated[str, typer.Option(help="What its client is told.")] = "Cancelled by an operator",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the worker has confirmed it.")] = False,
    timeout_secs: Annotated[float, typer.Option(help="How long --wait waits.", min=0, max=86_400)] = 30.0,
    json: Json = False,
) -> int:
    """Cancel requests: these IDs, or all that match every option given. What matches may only be seen: --dry-run.

    lifecycle cancel --model llama-3 --older-than 10m --dry-run

    Exits 1 when an ID is unknown, or with --wait when one is not confirmed in time.
    """
    from lifecycle.cli.operate import operate
    from lifecycle.queries.bulk_cancel import Selection
    from lifecycle.queries.cluster import Filter

    wait_secs = timeout_secs if wait else 0.0
    filter = Filter(status or "", model or "", endpoint or "", frontend or "", worker or "")
    selection = Selection(filter, None if older_than is None else float(older_than))
    if bool(ids) != selection.empty:
        raise typer.BadParameter("give IDs, or say which by --model, --older-than, --status, … and not both")
    if ids and dry_run:
        raise typer.BadParameter("--dry-run is for a selection; 'lifecycle ps --all' shows single requests")

    async def named(store: Store) -> int:
        rids = list(dict.fromkeys(ids or ()))
        answers = await asyncio.gather(*(_order(store, rid, mode, reason) for rid in rids))
        unknown = [rid for rid, record in zip(rids, answers, strict=True) if record is None]
        known = await _until_ended(store, [record for record in answers if record is not None], wait_secs)
        if json:
            output.write_json({"object": "list", "data": [r.to_json() for r in known], "unknown": unknown})
        else:
            _show(known)
            for rid in unknown:
                output.complain(f"{rid}: unknown or expired")
        return 1 if unknown or (wait and _unconfirmed(known)) else 0

    async def selected(store: Store) -> int:
        cancelled = await _select(store, selection, mode, reason, limit, dry_run)
        if not dry_run:
            cancelled.records = await _until_ended(store, cancelled.records, wait_secs)
        if json:
            output.write_json(cancelled.to_json())
        else:
            _show_selected(cancelled, await store.now())
        return 1 if wait and not dry_run and _unconfirmed(cancelled.records) else 0

    return operate(settings, named if ids else selected)


async def _order(store: Store, rid: str, mode: CancelMode, reason: str) -> RequestRecord | None:
    """The record as it is then; None when unknown."""
    cancellation = await store.cancel(rid, mode, reason, retry_for_secs=1.0) if is_request_id(rid) else None
    return cancellation.record if cancellation else None


async def _select(
    store: Store, selection: Selection, mode: CancelMode, reason: str, limit: int, dry_run: bool
) -> Cancelled:
    """Page by page, up to `limit`."""
    from lifecycle.queries.bulk_cancel import PAGE_MAX, Cancelled, cancel_selected

    every = Cancelled(dry_run, has_more=True)
    after: RequestRecord | None = None
    while every.has_more and every.matched < limit:
        size = min(PAGE_MAX, limit - every.matched)
        page = await cancel_selected(store, selection, mode, reason, limit=size, after=after, dry_run=dry_run)
        every.matched += page.matched
        every.records += page.records
        every.has_more = page.has_more and bool(page.records)
        after = page.records[-1] if page.records else None
    return every


async def _until_ended(store: Store, records: Sequence[RequestRecord], wait_secs: float) -> list[RequestRecord]:
    """As they are once all have ended, or the time is over."""
    known = {record.id: record for record in records}
    give_up_at, pause = time.monotonic() + wait_secs, _FIRST_PAUSE_SECS
    while (unconfirmed := _unconfirmed(known.values())) and time.monotonic() < give_up_at:
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECS)
        seen = await asyncio.gather(*(store.read(record.id, retry_for_secs=1.0) for record in unconfirmed))
        known |= {record.id: record for record in seen if record is not None}
    return list(known.values())


def _unconfirmed(records: Iterable[RequestRecord]) -> list[RequestRecord]:
    return [record for record in records if not record.status.terminal]


def _show(records: Sequence[RequestRecord]) -> None:
    for record in records:
        output.write(f"{record.id}  {_outcome(record)}")


def _show_selected(cancelled: Cancelled, now: float) -> None:
    if cancelled.dry_run and cancelled.records:
        rows = (listing.request_row(record, now) for record in cancelled.records)
        output.write("\n".join(output.table(listing.PS_HEADS, rows)))
    else:
        _show(cancelled.records)
    done = "nothing was cancelled (--dry-run)" if cancelled.dry_run else f"{cancelled.requested} told to end"
    output.write(f"{cancelled.matched} matched, {done}")
    if cancelled.has_more:
        output.complain("There are more; see --limit")


def _outcome(record: RequestRecord) -> str:
    if not record.status.terminal:
        return output.paint(f"{record.cancel_mode} ordered, not confirmed yet", output.YELLOW)
    return output.paint(record.status, output.STATUS_COLORS[record.status])
