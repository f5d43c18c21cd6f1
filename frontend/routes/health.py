"""Serve the health checks: `/live`, `/ready` (whether to send requests here) and `/health` (with details)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from frontend.transport.deps import get_tracker
from lifecycle.errors import StoreError
from lifecycle.fastapi.errors import retry_soon, summary_of
from lifecycle.fastapi.json_response import JsonResponse
from lifecycle.tracking.tracker import Tracker

router = APIRouter()


@router.get("/live")
async def live() -> Response:
    """Answer 200 while the process runs."""
    return _response(True, {"status": "live"})


@router.get("/ready")
async def ready(request: Request) -> Response:
    """Answer 200 when requests may be sent here; 503, with the reason, while draining or without Redis.

    A frontend that tells Redis again what it holds, after a loss of data, stays ready: so do all others at that moment,
    and new requests are served as ever.
    """
    tracker = get_tracker(request)
    reason = await _unready_reason(tracker)
    if reason:
        return _response(False, {"status": "not ready", "reason": reason})
    return _response(True, {"status": "ready"} | _reasserting(tracker))


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
    } | _reasserting(tracker)
    return _response(not reason, details | ({"reason": reason} if reason else {}))


def _reasserting(tracker: Tracker) -> dict[str, Any]:
    """Return the shards that have lost data and do not know again what this frontend holds, if there are any."""
    shards = sorted(tracker.lease.reasserting)
    return {"reasserting": shards} if shards else {}


async def _unready_reason(tracker: Tracker) -> str:
    if tracker.draining:
        return "draining"
    try:
        await tracker.check_ready()
    except StoreError as failure:
        return summary_of(failure)
    return ""


def _response(good: bool, content: dict[str, Any]) -> Response:
    headers = {} if good else {"retry-after": retry_soon()}
    return JsonResponse(content, 200 if good else 503, headers)
