"""`/v1/requests`: list, read, stream and cancel any request of the cluster, at any replica."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend import params
from frontend.deps import get_tracker
from frontend.errors import ApiError
from frontend.sse import ChunkEncoder
from frontend.stream import TokenStreamResponse
from lifecycle import cluster
from lifecycle.connection import ConnectionStatus
from lifecycle.ids import START, TokenId, is_request_id
from lifecycle.model import CancelMode, Endpoint, ErrorType, Status
from lifecycle.model import Request as Record
from lifecycle.tracker import Tracker

router = APIRouter(prefix="/v1/requests")

_STATUSES = (*Status, cluster.INFLIGHT)
_LIMIT_DEFAULT, _LIMIT_MAX = 100, 1000
_WAIT_MAX_MS = 30_000
_REASON_CHARS = 1024
_CANCEL_BODY_BYTES = 64 * 1024
_LABEL_CHARS = 512


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _unknown(rid: str) -> ApiError:
    return ApiError(ErrorType.NOT_FOUND, f"No request {rid!r} is known; it may have expired", code="request_not_found")


@router.get("")
async def list_requests(request: Request) -> Response:
    store, query = get_tracker(request).store, request.query_params
    limit = params.integer(query.get("limit"), "limit", _LIMIT_DEFAULT, 1, _LIMIT_MAX)
    filter = cluster.Filter(
        status=_one_of(query.get("status", ""), "status", _STATUSES),
        model=query.get("model", "")[:_LABEL_CHARS],
        endpoint=_one_of(query.get("endpoint", ""), "endpoint", tuple(Endpoint)),
        frontend=query.get("frontend", "")[:_LABEL_CHARS],
        worker=query.get("worker", "")[:_LABEL_CHARS],
    )
    after: Record | None = None
    if last := query.get("after"):
        after = await store.read(last) if is_request_id(last) else None
        if after is None:
            raise params.bad(f"after: no request {last[:128]!r} is known; it may have expired", "after")
    records, has_more = await cluster.list_requests(store, filter, limit, after)
    return _json({"object": "list", "data": [r.to_json() for r in records], "has_more": has_more})


@router.get("/{rid}")
async def read_request(request: Request, rid: str) -> Response:
    record = await get_tracker(request).store.read(rid) if is_request_id(rid) else None
    if record is None:
        raise _unknown(rid)
    return _json(record.to_json())


@router.get("/{rid}/stream")
async def stream_request(request: Request, rid: str) -> Response:
    """Replay from the start or behind a token, then follow live."""
    tracker = get_tracker(request)
    given = request.headers.get("last-event-id") or request.query_params.get("after")
    after = TokenId.parse(given) if given else START
    if after is None:
        raise params.bad("Last-Event-ID (or ?after=) must be the id of a token: <attempt>-<number>", "Last-Event-ID")
    if len(tracker.readers) >= tracker.settings.max_readers:
        raise ApiError(ErrorType.UNAVAILABLE, "This frontend has as many open streams as it may", code="overloaded")
    opened = await tracker.open_reader(rid, after) if is_request_id(rid) else None
    if opened is None:
        raise _unknown(rid)
    record, reader = opened

    async def on_closed(gracefully: bool) -> None:
        status = ConnectionStatus.CLOSED_GRACEFULLY if gracefully else ConnectionStatus.CLOSED_UNEXPECTEDLY
        await tracker.close_reader(reader, status)

    async def on_slow(message: str) -> None:
        await tracker.give_up_reader(reader, message)

    encoder = ChunkEncoder(Endpoint(record.endpoint), rid, record.model, int(record.created_at), False)
    return TokenStreamResponse(
        reader, encoder, request_id=rid, include_usage=False,
        slow_consumer_secs=tracker.settings.slow_consumer_secs, on_begin=lambda: None, on_closed=on_closed,
        on_slow=on_slow,
    )  # fmt: skip


@router.post("/{rid}/cancel")
async def cancel_request(request: Request, rid: str) -> Response:
    return await _cancel(request, rid, get_tracker(request))


@router.delete("/{rid}")
async def delete_request(request: Request, rid: str) -> Response:
    return await _cancel(request, rid, get_tracker(request))


async def _cancel(request: Request, rid: str, tracker: Tracker) -> Response:
    asked = await _cancel_fields(request)
    mode = CancelMode(_one_of(str(asked.get("mode") or CancelMode.KILL), "mode", tuple(CancelMode)))
    wait_ms = asked.get("wait_ms")
    if isinstance(wait_ms, bool) or not isinstance(wait_ms, int | str | None):
        raise params.bad(f"wait_ms must be a whole number from 0 to {_WAIT_MAX_MS}", "wait_ms")
    wait_secs = params.integer(None if wait_ms is None else str(wait_ms), "wait_ms", 0, 0, _WAIT_MAX_MS) / 1000
    reason = asked.get("reason")
    if not isinstance(reason, str | None) or len(reason or "") > _REASON_CHARS:
        raise params.bad(f"reason must be a string of at most {_REASON_CHARS} characters", "reason")
    cancellation = (
        await tracker.cancel(rid, mode, reason or "Cancelled by request", wait_secs) if is_request_id(rid) else None
    )
    if cancellation is None:
        raise _unknown(rid)
    return _json(cancellation.record.to_json(), 200 if cancellation.what == "terminal" else 202)


async def _cancel_fields(request: Request) -> dict[str, Any]:
    """From the JSON body, else from the query."""
    fields: dict[str, Any] = dict(request.query_params)
    body = await params.read_body(request, _CANCEL_BODY_BYTES)
    if body.strip():
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise params.bad("The body is not valid JSON", "body") from None
        if not isinstance(given, dict):
            raise params.bad("The body must be a JSON object", "body")
        fields |= given
    return fields


def _one_of(value: str, name: str, allowed: tuple[str, ...]) -> str:
    if value and value not in allowed:
        raise params.bad(f"{name} must be one of {', '.join(allowed)}", name)
    return value
