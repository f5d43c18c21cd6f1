"""Serve `/v1/responses/{id}`: retrieve, stream, cancel and delete any response of the cluster, at any frontend."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.endpoints.endpoint import Answer
from frontend.endpoints.responses.error import unknown_response
from frontend.endpoints.responses.history import read_fold, read_response
from frontend.endpoints.responses.input_items import input_items
from frontend.endpoints.responses.sse import ResponseEncoder
from frontend.endpoints.stream import empty_stream, stream_head
from frontend.routes.reading import ReaderResponse
from frontend.transport import params
from frontend.transport.deps import check_reader_limit, get_caller, get_tracker
from frontend.transport.headers import headers_of
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.integers import parse_integer
from lifecycle.ids import TokenId, is_request_id
from lifecycle.types import CancelMode, Endpoint, ErrorType, RequestRecord, Storage

router = APIRouter(prefix="/v1/responses")

ORDERS = ("asc", "desc")
ITEMS_DEFAULT, ITEMS_MAX = 20, 100
SEQUENCE_MAX = 2**53
_BOOLEANS = ("true", "false")


@router.get("/{rid}")
async def retrieve_response(request: Request, rid: str) -> Response:
    """Return the response as it is now, or stream its events. Raises ApiError (400, 404, 503) or StoreError."""
    query = request.query_params
    streams = params.one_of(query.get("stream", ""), "stream", _BOOLEANS) == "true"
    after = parse_integer(query.get("starting_after"), "starting_after", -1, 0, SEQUENCE_MAX)
    last_id = headers_of(request.scope).get("last-event-id", "") if streams else ""
    resumed = params.token_id(last_id)
    record = await _read_visible(request, rid)
    if not streams:
        return await _current(request, rid)
    if last_id:  # an EventSource that connects again has the URL of its first call, so this is the later position
        return await _stream(request, record, resumed.number, resumed.attempt)
    return await _stream(request, record, after + 1)


async def _stream(request: Request, record: RequestRecord, number: int, attempt: int | None = None) -> Response:
    """Stream the events behind the one with this number, which was of this attempt if the client has told it."""
    tracker, rid = get_tracker(request), record.id
    check_reader_limit(request, get_caller(request), tracker)
    answer = Answer(rid, record.model, record.created_at)
    read = await read_fold(tracker.store, answer, number)
    if read.last.number < number and record.status.terminal:
        if record.stream_length > read.last.number:
            raise unknown_response(rid)  # its events are gone
        return empty_stream()  # the client has an ending that was made of the record, and nothing follows
    if ClientConnection.of(request.scope).is_head:
        return stream_head()
    opened = await tracker.open_reader(rid, TokenId(read.last.attempt if attempt is None else attempt, number))
    if opened is None:
        raise unknown_response(rid)
    return ReaderResponse(tracker, opened[1], ResponseEncoder(record.created_at, read.fold, number))


@router.delete("/{rid}")
async def delete_response(request: Request, rid: str) -> Response:
    """Delete the content of a response, and cancel it if it has not ended. Raises ApiError (404) or StoreError."""
    record, tracker = await _read_visible(request, rid), get_tracker(request)
    if not record.status.terminal:
        await tracker.cancel(rid, CancelMode.KILL, "The response was deleted", by=get_caller(request).canceller)
    await tracker.store.delete_content(rid, retry_for_secs=1.0)
    return _json({"id": rid, "object": "response", "deleted": True})


@router.post("/{rid}/cancel")
async def cancel_response(request: Request, rid: str) -> Response:
    """Cancel a response in the background, and return it as it is then.

    It waits up to CANCEL_WAIT_SECS for the confirmation of its worker. Raises ApiError (400, 404) or StoreError.
    """
    record, tracker = await _read_visible(request, rid), get_tracker(request)
    if record.storage != Storage.BACKGROUND:
        message = f"The response {rid!r} was not started with background=true; only such a response can be cancelled"
        raise ApiError(ErrorType.VALIDATION, message, code="response_not_in_background")
    if not record.status.terminal:
        wait_secs, by = tracker.settings.cancel_wait_secs, get_caller(request).canceller
        await tracker.cancel(rid, CancelMode.KILL, "Cancelled by request", wait_secs, by=by)
    return await _current(request, rid)


@router.get("/{rid}/input_items")
async def list_input_items(request: Request, rid: str) -> Response:
    """List the items of the input of a response. Raises ApiError (400, 404) or StoreError."""
    query = request.query_params
    limit = parse_integer(query.get("limit"), "limit", ITEMS_DEFAULT, 1, ITEMS_MAX)
    order = params.one_of(query.get("order", ""), "order", ORDERS) or "desc"
    await _read_visible(request, rid)
    content = await get_tracker(request).store.read_content(rid, retry_for_secs=1.0)
    if content is None or content.body is None:
        raise unknown_response(rid)
    items = input_items(orjson.loads(content.body))
    if order == "desc":
        items.reverse()
    after = query.get("after")
    start = 0
    if after:
        start = 1 + next((index for index, item in enumerate(items) if item["id"] == after), len(items))
        if start > len(items):
            raise params.invalid_parameter(f"after: the response has no input item {after[:128]!r}", "after")
    page = items[start : start + limit]
    return _json(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + limit < len(items),
        }
    )


async def _current(request: Request, rid: str) -> Response:
    read = await read_response(get_tracker(request).store, rid)
    if read is None:
        raise unknown_response(rid)
    return _json(read[1])


async def _read_visible(request: Request, rid: str) -> RequestRecord:
    """Return the record of a response that the caller may see. Raises ApiError (404), StoreError."""
    record = await get_tracker(request).store.read(rid, retry_for_secs=0.3) if is_request_id(rid) else None
    if (
        record is None
        or record.endpoint != Endpoint.RESPONSES
        or record.storage == Storage.DELETED
        or not get_caller(request).may_see(record.owner)
    ):
        raise unknown_response(rid)
    return record


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
