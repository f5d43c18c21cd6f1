"""`POST /v1/requests/cancel`: cancel what requests have in common, a page at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.transport import params
from frontend.transport.deps import get_caller, get_tracker
from lifecycle.queries import bulk_cancel, cluster
from lifecycle.queries.bulk_cancel import Selector
from lifecycle.types import Endpoint

router = APIRouter()

_LABELS = ("model", "endpoint", "status", "frontend", "worker")
_FIELDS = (*_LABELS, "older_than_secs", "mode", "reason", "dry_run", "limit", "after")
_OLDEST_SECS = 10 * 365 * 86_400.0


@router.post("/v1/requests/cancel")
async def cancel_selected(request: Request) -> Response:
    store, caller = get_tracker(request).store, get_caller(request)
    asked = await params.read_object(request)
    for name in asked:
        if name not in _FIELDS:  # a misspelt field would match more than was meant
            raise params.bad(f"{name[:64]!r} is none of {', '.join(_FIELDS)}", name[:64])
    selected = Selector(_filter(asked), _older_than(asked.get("older_than_secs")))
    if selected.empty:
        raise params.bad(
            "Say which requests: model, endpoint, status, frontend, worker or older_than_secs; status inflight is all",
            "body",
        )
    dry_run = asked.get("dry_run")
    if not isinstance(dry_run, bool | None):
        raise params.bad("dry_run must be true or false", "dry_run")
    limit = params.whole(asked.get("limit"), "limit", bulk_cancel.PAGE_MAX, 1, bulk_cancel.PAGE_MAX)
    mode, reason = params.cancel_mode(asked), params.reason(asked)
    after = await params.known_request(store, params.text(asked, "after"), caller)
    selected = replace(selected, filter=selected.filter._replace(owner=caller.owner))
    cancelled = await bulk_cancel.cancel_selected(
        store, selected, mode, reason, limit=limit, after=after, dry_run=bool(dry_run)
    )
    return Response(orjson.dumps(cancelled.to_json()), media_type="application/json")


def _filter(asked: dict[str, Any]) -> cluster.Filter:
    labels = {name: params.text(asked, name) for name in _LABELS}
    for name in _LABELS:
        if asked.get(name) == "":  # an empty variable of a script must not pass for "any"
            raise params.bad(f"{name} is empty; leave it away for any", name)
    params.one_of(labels["status"], "status", bulk_cancel.STATUSES)
    params.one_of(labels["endpoint"], "endpoint", tuple(Endpoint))
    return cluster.Filter(**labels)


def _older_than(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _OLDEST_SECS:
        raise params.bad("older_than_secs must be a number of seconds from 0 on", "older_than_secs")
    return float(value)
