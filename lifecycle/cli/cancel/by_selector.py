"""Cancel all requests that match a selector, or show them without cancelling (--dry-run)."""

from __future__ import annotations

from lifecycle.cli import listing, output
from lifecycle.cli.cancel.confirmation import unconfirmed, wait_until_ended, write_outcomes
from lifecycle.queries.bulk_cancel import PAGE_MAX, Cancelled, Selector, cancel_selected
from lifecycle.store.transitions import Store
from lifecycle.types import OPERATOR_CLI, CancelMode, RequestRecord


async def cancel_matching(
    store: Store,
    selector: Selector,
    mode: CancelMode,
    reason: str,
    wait_secs: float | None,
    limit: int,
    *,
    dry_run: bool,
    json: bool,
) -> int:
    """Cancel at most `limit` matching requests and print them. Return 1 if one stays unconfirmed.

    `wait_secs` is None when nobody waits for the confirmation; the result is then 0.

    Raises StoreUnavailable when Redis is out of reach.
    """
    cancelled = await _cancel_pages(store, selector, mode, reason, limit, dry_run)
    if not dry_run:
        cancelled.records = await wait_until_ended(store, cancelled.records, wait_secs or 0.0)
    if json:
        output.write_json(cancelled.to_json())
    else:
        _write(cancelled, await store.now())
    return 1 if wait_secs is not None and not dry_run and unconfirmed(cancelled.records) else 0


async def _cancel_pages(
    store: Store, selector: Selector, mode: CancelMode, reason: str, limit: int, dry_run: bool
) -> Cancelled:
    """Go through the matching requests page by page, up to `limit`, and return the sum of all pages."""
    total = Cancelled(dry_run, has_more=True)
    after: RequestRecord | None = None
    while total.has_more and total.matched < limit:
        size = min(PAGE_MAX, limit - total.matched)
        page = await cancel_selected(
            store, selector, mode, reason, by=OPERATOR_CLI, limit=size, after=after, dry_run=dry_run
        )
        total.matched += page.matched
        total.records += page.records
        total.has_more = page.has_more and bool(page.records)
        after = page.records[-1] if page.records else None
    return total


def _write(cancelled: Cancelled, now: float) -> None:
    if cancelled.dry_run and cancelled.records:
        rows = (listing.request_row(record, now) for record in cancelled.records)
        output.write("\n".join(output.table(listing.PS_HEADS, rows)))
    else:
        write_outcomes(cancelled.records)
    done = (
        "nothing was cancelled (--dry-run)" if cancelled.dry_run else f"{cancelled.requested} cancellations requested"
    )
    output.write(f"{cancelled.matched} matched, {done}")
    if cancelled.has_more:
        output.complain("More requests match; raise --limit, or run the command again")
