"""`/v1/requests`: list, read, stream and cancel any request of the cluster, at any replica."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.openai_api.sse import ChunkEncoder
from frontend.openai_api.stream import TokenStreamResponse
from frontend.transport import params
from frontend.transport.deps import get_caller, get_tracker
from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import START, TokenId, is_request_id
from lifecycle.queries import cluster
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Endpoint, ErrorType, RequestRecord, Status

router = APIRouter(prefix="/v1/requests")

STATUSES = (*Status, cluster.INFLIGHT)
_LIMIT_DEFAULT, _LIMIT_MAX = 100, 1000
_WAIT_MAX_MS = 30_000


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _unknown(rid: str) -> ApiError:
    return ApiError(ErrorType.NOT_FOUND, f"No request {rid!r} is known; it may have expired", code="request_not_found")


@router.get("")
async def list_requests(request: Request) -> Response:
    store, query, caller = get_tracker(request).store, request.query_params, get_caller(request)
    limit = params.integer(query.get("limit"), "limit", _LIMIT_DEFAULT, 1, _LIMIT_MAX)
    filter = cluster.Filter(
        status=params.one_of(query.get("status", ""), "status", STATUSES),
        model=query.get("model", "")[: params.LABEL_CHARS],
        endpoint=params.one_of(query.get("endpoint", ""), "endpoint", tuple(Endpoint)),
        frontend=query.get("frontend", "")[: params.LABEL_CHARS],
        worker=query.get("worker", "")[: params.LABEL_CHARS],
        owner=caller.owner,
    )
    after = await params.known_request(store, query.get("after", ""), caller)
    records, has_more = await cluster.list_requests(store, filter, limit, after)
    return _json({"object": "list", "data": [r.to_json() for r in records], "has_more": has_more})


@router.get("/{rid}")
async def read_request(request: Request, rid: str) -> Response:
    record = await _seen(request, rid)
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
    opened = await tracker.open_reader(rid, after) if await _may_touch(request, rid) else None
    if opened is None:
        raise _unknown(rid)
    record, reader = opened

    async def on_closed(gracefully: bool) -> None:
        status = ConnectionStatus.CLOSED_GRACEFULLY if gracefully else ConnectionStatus.CLOSED_UNEXPECTEDLY
        await tracker.close_reader(reader, status)

    async def on_slow(message: str) -> None:
        await tracker.fail_slow_consumer(reader, message)

    encoder = ChunkEncoder(Endpoint(record.endpoint), rid, record.model, int(record.created_at), False)
    return TokenStreamResponse(
        reader,
        encoder,
        request_id=rid,
        include_usage=False,
        slow_consumer_secs=tracker.settings.slow_consumer_secs,
        on_begin=lambda: None,
        on_closed=on_closed,
        on_slow=on_slow,
    )


@router.post("/{rid}/cancel")
async def cancel_request(request: Request, rid: str) -> Response:
    return await _cancel(request, rid, get_tracker(request))


@router.delete("/{rid}")
async def delete_request(request: Request, rid: str) -> Response:
    return await _cancel(request, rid, get_tracker(request))


async def _cancel(request: Request, rid: str, tracker: Tracker) -> Response:
    asked = {**request.query_params, **await params.read_object(request)}
    mode, reason = params.cancel_mode(asked), params.reason(asked)
    wait_secs = params.whole(asked.get("wait_ms"), "wait_ms", 0, 0, _WAIT_MAX_MS) / 1000
    cancellation = await tracker.cancel(rid, mode, reason, wait_secs) if await _may_touch(request, rid) else None
    if cancellation is None:
        raise _unknown(rid)
    return _json(cancellation.record.to_json(), 200 if cancellation.what == "terminal" else 202)


async def _seen(request: Request, rid: str) -> RequestRecord | None:
    """The record, if there is one and it is the caller's to see."""
    record = await get_tracker(request).store.read(rid) if is_request_id(rid) else None
    return record if record is not None and get_caller(request).may_see(record.owner) else None


async def _may_touch(request: Request, rid: str) -> bool:
    """Whether there is any use in asking for it; costs whoever may see everything no look at the record."""
    if not get_caller(request).owner:
        return is_request_id(rid)
    return await _seen(request, rid) is not None
