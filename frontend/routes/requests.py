"""Serve `/v1/requests`: list, read, stream and cancel any request of the cluster, at any frontend."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.endpoints import BY_NAME
from frontend.endpoints.endpoint import Answer, EventEncoder
from frontend.endpoints.stream import stream_head
from frontend.routes.reading import ReaderResponse
from frontend.transport import params
from frontend.transport.deps import check_reader_limit, get_caller, get_tracker
from frontend.transport.headers import headers_of
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.integers import integer_field, parse_integer
from lifecycle.fastapi.json_events import JsonEventEncoder
from lifecycle.ids import TokenId, is_request_id
from lifecycle.queries import cluster, queues, timeline, tree
from lifecycle.store.transitions import Store
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import FORWARDS, ErrorType, RequestRecord, Status, Storage

router = APIRouter(prefix="/v1/requests")

STATUSES = (*Status, cluster.INFLIGHT)
FORMATS = ("events",)
"""Lists the values of a stream's `?format=`; without it the events are in the format of the request's endpoint."""

_LIMIT_DEFAULT, _LIMIT_MAX = 100, 1000
_WAIT_MAX_MS = 30_000


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _unknown(rid: str) -> ApiError:
    message = f"The request {rid!r} is unknown; its record may have expired"
    return ApiError(ErrorType.NOT_FOUND, message, code="request_not_found")


@router.get("")
async def list_requests(request: Request) -> Response:
    """List the records that match the query, newest first. Raises ApiError (400) or StoreError."""
    store, query, caller = get_tracker(request).store, request.query_params, get_caller(request)
    limit = parse_integer(query.get("limit"), "limit", _LIMIT_DEFAULT, 1, _LIMIT_MAX)
    owner = caller.visible_owner(query.get("owner", "")[: params.LABEL_CHARS])
    filter = cluster.Filter(
        status=params.one_of(query.get("status", ""), "status", STATUSES),
        model=query.get("model", "")[: params.LABEL_CHARS],
        endpoint=params.endpoint_name(query.get("endpoint", "")),
        frontend=query.get("frontend", "")[: params.LABEL_CHARS],
        worker=query.get("worker", "")[: params.LABEL_CHARS],
        owner=owner or "",
    )
    after = await params.read_page_start(store, query.get("after", ""), caller)
    nothing: tuple[list[RequestRecord], bool] = ([], False)
    records, has_more = nothing if owner is None else await cluster.list_requests(store, filter, limit, after)
    return _json({"object": "list", "data": [r.to_json() for r in records], "has_more": has_more})


@router.get("/{rid}")
async def read_request(request: Request, rid: str) -> Response:
    """Return one record. Raises ApiError (404) or StoreError."""
    record = await _read_visible(request, rid)
    if record is None:
        raise _unknown(rid)
    return _json((await queues.with_wait(get_tracker(request).store, record)).to_json())


@router.get("/{rid}/timeline")
async def read_timeline(request: Request, rid: str) -> Response:
    """Return what happened to one request, in order. Raises ApiError (404) or StoreError."""
    store, caller = get_tracker(request).store, get_caller(request)
    found = await timeline.read(store, rid, caller.may_see) if is_request_id(rid) else None
    if found is None or not caller.may_see(found.record.owner):
        raise _unknown(rid)
    return _json(found.to_json())


@router.get("/{rid}/tree")
async def read_tree(request: Request, rid: str) -> Response:
    """Return the requests that led to this one, itself, and those it has started.

    Raises ApiError (404) or StoreError.
    """
    store, caller = get_tracker(request).store, get_caller(request)
    found = await tree.read(store, rid, caller.may_see) if is_request_id(rid) else None
    if found is None:
        raise _unknown(rid)
    return _json(found.to_json())


@router.get("/{rid}/stream")
async def stream_request(request: Request, rid: str) -> Response:
    """Replay the token stream from its start, or behind a token, then follow it live.

    With `?format=events` each event is the JSON that the engine yielded, whatever the format of the endpoint.

    A reader that has the last event of an ended request gets 204, which keeps a browser's EventSource from connecting
    again. Raises ApiError (400, 404, 503) or StoreError.
    """
    tracker = get_tracker(request)
    position = headers_of(request.scope).get("last-event-id") or request.query_params.get("after")
    after = params.token_id(position or "")
    raw = params.one_of(request.query_params.get("format", ""), "format", FORMATS) == "events"
    check_reader_limit(request, get_caller(request), tracker)
    record = await _read_visible(request, rid)
    if record is None:
        raise _unknown(rid)
    if after.number > 0 and _is_last_event(record, after):
        return Response(status_code=204)
    if record.status.terminal and record.storage == Storage.DELETED:
        message = f"The events of the request {rid!r} were deleted, or removed to make room for newer ones"
        raise ApiError(ErrorType.NOT_FOUND, message, code="content_deleted")
    if ClientConnection.of(request.scope).is_head:
        return stream_head()
    is_raw = raw and record.endpoint not in FORWARDS  # whose events are JSON in their own format too
    encoder = JsonEventEncoder(rid) if is_raw else await _encoder(record, after, tracker.store)
    opened = await tracker.open_reader(rid, after)  # last, because only the response closes it
    if opened is None:
        raise _unknown(rid)
    return ReaderResponse(tracker, opened[1], encoder)


async def _encoder(record: RequestRecord, after: TokenId, store: Store) -> EventEncoder:
    """Return the encoder of the request's endpoint; an application's own endpoint has JSON values for events."""
    endpoint = BY_NAME.get(record.endpoint)
    if endpoint is None:
        return JsonEventEncoder(record.id)
    answer = Answer(record.id, record.model, record.created_at, bool(record.include_usage))
    return await endpoint.resumed_encoder(answer, after, store)


def _is_last_event(record: RequestRecord, after: TokenId) -> bool:
    """Return whether the request has ended and nothing follows the event `after`."""
    return record.status.terminal and record.stream_length == after.number and after.attempt <= record.attempt


@router.post("/{rid}/cancel")
async def cancel_request(request: Request, rid: str) -> Response:
    """Cancel one request, with options in the query or the body.

    Raises ApiError (400, 404, 408, 413) or StoreError.
    """
    return await _cancel(request, rid, get_tracker(request))


@router.delete("/{rid}")
async def delete_request(request: Request, rid: str) -> Response:
    """Cancel one request, as `POST /v1/requests/{rid}/cancel` does."""
    return await _cancel(request, rid, get_tracker(request))


async def _cancel(request: Request, rid: str, tracker: Tracker) -> Response:
    fields = {**request.query_params, **await params.read_json_object(request)}
    mode, reason = params.cancel_mode(fields), params.reason(fields)
    wait_secs = integer_field(fields.get("wait_ms"), "wait_ms", 0, 0, _WAIT_MAX_MS) / 1000
    by = get_caller(request).canceller
    accessible = await _is_accessible(request, rid)
    cancellation = await tracker.cancel(rid, mode, reason, wait_secs, by=by) if accessible else None
    if cancellation is None:
        raise _unknown(rid)
    return _json(cancellation.record.to_json(), 200 if cancellation.what == "terminal" else 202)


async def _read_visible(request: Request, rid: str) -> RequestRecord | None:
    """Return the record if it exists and the caller may see it."""
    record = await get_tracker(request).store.read(rid) if is_request_id(rid) else None
    return record if record is not None and get_caller(request).may_see(record.owner) else None


async def _is_accessible(request: Request, rid: str) -> bool:
    """Return whether the caller may stream and cancel this request. Reads the record only for a client."""
    if not get_caller(request).owner:
        return is_request_id(rid)
    return await _read_visible(request, rid) is not None
