"""Serve `POST /v1/requests/cancel`: cancel all inflight requests that match a selector, one page at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.transport import params
from frontend.transport.deps import get_caller, get_tracker
from lifecycle.fastapi.integers import integer_field
from lifecycle.queries import bulk_cancel, cluster
from lifecycle.queries.bulk_cancel import Cancelled, Selector

router = APIRouter()

_LABELS = ("model", "endpoint", "status", "frontend", "worker", "owner")
_FIELDS = (*_LABELS, "older_than_secs", "mode", "reason", "dry_run", "limit", "after")
_MAX_AGE_SECS = 10 * 365 * 86_400.0


@router.post("/v1/requests/cancel")
async def cancel_matching(request: Request) -> Response:
    """Cancel a page of the requests that match; a client's call matches its own only. Raises ApiError or StoreError."""
    store, caller = get_tracker(request).store, get_caller(request)
    fields = await params.read_json_object(request)
    for name in fields:
        if name not in _FIELDS:  # ignoring a misspelt field would cancel more than was meant
            message = f"{name[:64]!r} is unknown; the fields are {', '.join(_FIELDS)}"
            raise params.invalid_parameter(message, name[:64])
    selected = Selector(_filter(fields), _older_than_secs(fields.get("older_than_secs")))
    if selected.empty:
        raise params.invalid_parameter(
            "The selector is empty; give model, endpoint, status, frontend, worker, owner or older_than_secs "
            "(status inflight selects all requests)",
            "body",
        )
    dry_run = fields.get("dry_run")
    if not isinstance(dry_run, bool | None):
        raise params.invalid_parameter("dry_run must be true or false", "dry_run")
    limit = integer_field(fields.get("limit"), "limit", bulk_cancel.PAGE_MAX, 1, bulk_cancel.PAGE_MAX)
    mode, reason = params.cancel_mode(fields), params.reason(fields)
    after = await params.read_page_start(store, params.text_field(fields, "after"), caller)
    owner = caller.visible_owner(selected.filter.owner)
    if owner is None:
        return Response(orjson.dumps(Cancelled(bool(dry_run)).to_json()), media_type="application/json")
    selected = replace(selected, filter=selected.filter._replace(owner=owner))
    cancelled = await bulk_cancel.cancel_selected(
        store,
        selected,
        mode,
        reason,
        by=caller.canceller,
        via=get_tracker(request).id,
        limit=limit,
        after=after,
        dry_run=bool(dry_run),
    )
    return Response(orjson.dumps(cancelled.to_json()), media_type="application/json")


def _filter(fields: dict[str, Any]) -> cluster.Filter:
    labels = {name: params.text_field(fields, name) for name in _LABELS}
    for name in _LABELS:
        if fields.get(name) == "":  # an unset variable in a script must not select everything
            raise params.invalid_parameter(f"{name} is empty; omit it to select any {name}", name)
    params.one_of(labels["status"], "status", bulk_cancel.STATUSES)
    params.endpoint_name(labels["endpoint"])
    return cluster.Filter(**labels)


def _older_than_secs(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_AGE_SECS:
        message = f"older_than_secs must be a number of seconds from 0 to {_MAX_AGE_SECS:g}"
        raise params.invalid_parameter(message, "older_than_secs")
    return float(value)
