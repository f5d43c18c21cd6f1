"""Serve the health checks: `/live`, `/ready` (whether to send requests here) and `/health` (with details)."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.transport.deps import get_tracker
from lifecycle.errors import StoreError
from lifecycle.fastapi.errors import retry_soon, summary_of
from lifecycle.tracking.tracker import Tracker

router = APIRouter()


@router.get("/live")
async def live() -> Response:
    """Answer 200 while the process runs."""
    return _response(True, {"status": "live"})


@router.get("/ready")
async def ready(request: Request) -> Response:
    """Answer 200 when requests may be sent here; 503, with the reason, while draining or without Redis."""
    reason = await _unready_reason(get_tracker(request))
    return _response(not reason, {"status": "not ready", "reason": reason} if reason else {"status": "ready"})


@router.get("/health")
async def health(request: Request) -> Response:
    """Answer as `/ready` does, with details."""
    tracker = get_tracker(request)
    reason = await _unready_reason(tracker)
    details: dict[str, Any] = {
        "status": "unhealthy" if reason else "healthy",
        "frontend": tracker.id,
        "inflight": len(tracker.owned),
        "readers": len(tracker.readers),
        "lease_age_ms": int(tracker.lease.age_secs * 1000),
    }
    return _response(not reason, details | ({"reason": reason} if reason else {}))


async def _unready_reason(tracker: Tracker) -> str:
    if tracker.draining:
        return "draining"
    try:
        await tracker.store.ping()
    except StoreError as failure:
        return summary_of(failure)
    return ""


def _response(good: bool, content: dict[str, Any]) -> Response:
    headers = {} if good else {"retry-after": retry_soon()}
    return Response(orjson.dumps(content), 200 if good else 503, headers, media_type="application/json")
