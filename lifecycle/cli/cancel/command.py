"""`cancel`: read the options, and cancel either the named requests or all that match a selector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json, chosen, not_empty, seconds
from lifecycle.settings import Settings
from lifecycle.types import CancelMode, Endpoint, Status

if TYPE_CHECKING:
    from lifecycle.store.transitions import Store

_INFLIGHT = ("inflight", Status.QUEUED, Status.RUNNING)


@with_settings(OPERATOR)
def cancel(
    settings: Settings,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="The ids of the requests. Without ids, select requests by the options."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Requests for this model.", callback=not_empty)] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Requests of this endpoint, for instance chat_completions.", callback=chosen(*Endpoint)),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Requests that are queued, running, or inflight (both).", callback=chosen(*_INFLIGHT)),
    ] = None,
    frontend: Annotated[
        str | None, typer.Option(metavar="ID", help="Requests of this frontend.", callback=not_empty)
    ] = None,
    worker: Annotated[
        str | None, typer.Option(metavar="ID", help="Requests that run on this worker.", callback=not_empty)
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="NAME", help="Requests of this owner, an API key's name.", callback=not_empty)
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Requests admitted at least this long ago: 90s, 10m, 1h30m.", callback=seconds
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be cancelled.")] = False,
    limit: Annotated[
        int, typer.Option(help="Maximum number of requests; the newest come first.", min=1, max=100_000)
    ] = 10_000,
    mode: Annotated[
        CancelMode,
        typer.Option(help="kill: end now. stop: produce no more, but deliver what was produced."),
    ] = CancelMode.KILL,
    reason: Annotated[str, typer.Option(help="The reason that the client is given.")] = "Cancelled by an operator",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the worker has confirmed the cancellation.")] = False,
    timeout_secs: Annotated[float, typer.Option(help="Maximum time that --wait waits.", min=0, max=86_400)] = 30.0,
    json: Json = False,
) -> int:
    """Cancel requests: the given IDs, or all requests that match every given option.

    Use --dry-run to see which requests match, for example:

    lifecycle cancel --model llama-3 --older-than 10m --dry-run

    Exits 1 when an ID is unknown, or with --wait when a cancellation is not confirmed in time.
    """
    from lifecycle.cli.cancel.by_id import cancel_ids
    from lifecycle.cli.cancel.by_selector import cancel_matching
    from lifecycle.cli.operate import operate
    from lifecycle.queries.bulk_cancel import Selector
    from lifecycle.queries.cluster import Filter

    wait_secs = timeout_secs if wait else None
    filter = Filter(status or "", model or "", endpoint or "", frontend or "", worker or "", owner or "")
    selector = Selector(filter, None if older_than is None else float(older_than))
    if bool(ids) != selector.empty:
        raise typer.BadParameter("give either IDs or selecting options (--model, --older-than, --status, …), not both")
    if ids and dry_run:
        raise typer.BadParameter("--dry-run works with selecting options only; use 'lifecycle ps --all' to see an ID")

    async def work(store: Store) -> int:
        if ids:
            return await cancel_ids(store, ids, mode, reason, wait_secs, json=json)
        return await cancel_matching(store, selector, mode, reason, wait_secs, limit, dry_run=dry_run, json=json)

    return operate(settings, work)
