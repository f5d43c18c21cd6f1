"""`ps` and `inflight`: list requests and count them; and the rows of their tables, and of that of the replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json, chosen
from lifecycle.cli.output import NONE, Cell, duration
from lifecycle.records import Replica
from lifecycle.settings import Settings
from lifecycle.types import ReplicaState, RequestRecord, Status

if TYPE_CHECKING:
    from lifecycle.queries.cluster import Inflight
    from lifecycle.store.transitions import Store

_STATUSES = ("inflight", *Status)
_STATE_COLORS = {
    ReplicaState.STARTING: output.CYAN,
    ReplicaState.READY: output.GREEN,
    ReplicaState.UNHEALTHY: output.RED,
}
_ERROR_CHARS = 80  # of a replica's error that a table shows; `--json` has the whole
PS_HEADS = ["ID", "MODEL", "ENDPOINT", "STATUS", "AGE", "TOKENS", "SILENCE", "FRONTEND", "WORKER", "ATTEMPT", "OWNER"]
REPLICA_HEADS = ["ID", "ROLE", "STATE", "INFLIGHT", "SLOTS", "MODELS", "HOST", "PID", "UP", "LEASE", "URL", "ERROR"]
INFLIGHT_HEADS = ["MODEL", "ENDPOINT", "TYPE", "QUEUED", "RUNNING", "INFLIGHT"]


@with_settings(OPERATOR)
def ps(
    settings: Settings,
    every: Annotated[bool, typer.Option("--all", "-a", help="Include finished requests.")] = False,
    status: Annotated[
        str | None,
        typer.Option(
            help="Only requests with this status: inflight (queued or running), running, completed, …",
            callback=chosen(*_STATUSES),
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Only requests for this model.")] = "",
    owner: Annotated[str, typer.Option(metavar="NAME", help="Only requests of this owner, an API key's name.")] = "",
    limit: Annotated[int, typer.Option(help="Maximum number of requests.", min=1, max=1000)] = 100,
    json: Json = False,
) -> int:
    """List inflight requests, newest first."""
    from lifecycle.cli.operate import operate
    from lifecycle.queries import cluster

    wanted = cluster.Filter(status=status or ("" if every else cluster.INFLIGHT), model=model, owner=owner)

    async def work(store: Store) -> int:
        records, has_more = await cluster.list_requests(store, wanted, limit)
        if json:
            output.write_json({"object": "list", "data": [r.to_json() for r in records], "has_more": has_more})
            return 0
        now = await store.now()
        output.write("\n".join(output.table(PS_HEADS, (request_row(record, now) for record in records))))
        if has_more:
            output.complain(f"More than {limit} requests match; raise --limit to see more")
        return 0

    return operate(settings, work)


@with_settings(OPERATOR)
def inflight(
    settings: Settings,
    model: Annotated[str, typer.Option(help="Only requests for this model.")] = "",
    json: Json = False,
) -> int:
    """Count inflight requests in the whole cluster."""
    from lifecycle.cli.operate import operate
    from lifecycle.queries import cluster

    async def work(store: Store) -> int:
        counts = await cluster.inflight(store, model)
        if json:
            output.write_json(counts.to_json())
            return 0
        output.write("\n".join(output.table(INFLIGHT_HEADS, inflight_rows(counts))))
        return 0

    return operate(settings, work)


def request_row(record: RequestRecord, now: float) -> list[str | Cell]:
    """Return a row for PS_HEADS; `now` is Redis's time in Unix seconds."""
    running_since = record.last_token_at or record.started_at
    silence = now - running_since if record.status is Status.RUNNING and running_since is not None else None
    return [
        record.id,
        record.model,
        record.endpoint,
        output.status_cell(record),
        duration(now - record.created_at),
        str(record.output_tokens),
        duration(silence),
        record.frontend or NONE,
        record.worker or NONE,
        str(record.attempt),
        record.owner or NONE,
    ]


def replica_row(replica: Replica, now: float) -> list[str | Cell]:
    """Return a row for REPLICA_HEADS; `now` is Redis's time in Unix seconds."""
    error = " ".join((replica.error or "").split())
    return [
        replica.id,
        replica.role,
        Cell(replica.state, next((c for s, c in _STATE_COLORS.items() if s == replica.state), output.YELLOW)),
        str(replica.inflight),
        str(replica.concurrency or NONE),
        ",".join(replica.models),
        replica.host,
        str(replica.pid),
        duration(now - replica.started_at),
        duration(replica.lease_expires_in_ms / 1000),
        replica.url or NONE,
        f"{error[:_ERROR_CHARS]}…" if len(error) > _ERROR_CHARS else error or NONE,
    ]


def inflight_rows(counts: Inflight) -> list[list[str | Cell]]:
    """Return rows for INFLIGHT_HEADS, one for each group, and the total as the last."""
    rows: list[list[str | Cell]] = [
        [*labels, str(count.queued), str(count.running), str(count.inflight)]
        for labels, count in sorted(counts.groups.items())
    ]
    total = counts.total
    return [*rows, ["total", NONE, NONE, str(total.queued), str(total.running), str(total.inflight)]]
