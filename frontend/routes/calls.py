"""Serve the calls that start a request, of every endpoint: as one body, or as an event stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.endpoints import ENDPOINTS
from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call, Fold
from frontend.endpoints.priority import with_priority
from frontend.endpoints.stream import TokenStreamResponse
from frontend.routes.call_admission import admit, refuse_known_id, with_only_model
from frontend.transport import params
from frontend.transport.call_headers import CallHeaders
from frontend.transport.deps import get_tracker
from frontend.transport.headers import headers_of
from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.cancel_on_disconnect import CancelOnDisconnect
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError, failed_request
from lifecycle.settings import Settings
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import AdmittedRequest
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType, RequestType, Status

router = APIRouter()

_STREAM = RequestType.STREAM  # a global name: looking a member up in its enum is slow
_REPLAYED = {"idempotent-replayed": "true"}


def _route(endpoint: ApiEndpoint) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        tracker = get_tracker(request)
        settings = tracker.settings
        call, headers = await _read_call(request, endpoint, tracker, settings)
        if not call.model:
            call = await with_only_model(call, tracker)
        admitted = await admit(request, endpoint, call, headers, tracker)
        if call.request_type is _STREAM:
            return _streaming(endpoint, admitted, call, headers, tracker, settings)
        if call.is_background:
            return await _in_background(endpoint, admitted, call, tracker)
        return await _unary(endpoint, request, admitted, call, headers)

    serve.__doc__ = f"{endpoint.__doc__} Raises ApiError, StoreError, Fenced or ClientDisconnect."
    return serve


ROUTES = {path: _route(endpoint) for endpoint in ENDPOINTS for path in endpoint.paths}
for path, route in ROUTES.items():
    router.post(path)(route)


async def _read_call(
    request: Request, endpoint: ApiEndpoint, tracker: Tracker, settings: Settings
) -> tuple[Call, CallHeaders]:
    try:
        try:
            body = await params.read_body(request, settings.max_body_bytes)
        except ApiError as refusal:
            await refuse_known_id(request, tracker, refusal)
            raise
        call, headers = with_priority(endpoint.parse(body)), headers_of(request.scope)
        return call, CallHeaders.parse(headers, settings, endpoint.forwarded_headers)
    except ApiError as error:
        tracker.metrics.rejections.labels("", endpoint.name, error.error_type).inc()
        raise


def _streaming(
    endpoint: ApiEndpoint,
    admitted: AdmittedRequest,
    call: Call,
    headers: CallHeaders,
    tracker: Tracker,
    settings: Settings,
) -> Response:
    encoder = endpoint.encoder(Answer(admitted.rid, call.model, admitted.created_at), call)

    def on_begin() -> None:
        admitted.stream.arm()
        admitted.connection.disarm()
        admitted.connection.close()

    async def on_closed(gracefully: bool) -> None:
        if gracefully:
            admitted.stream.disarm()
        admitted.stream.close()

    async def on_slow(message: str) -> None:
        await tracker.fail_slow_consumer(admitted.reader, message)

    response = TokenStreamResponse(
        admitted.reader,
        encoder,
        slow_consumer_secs=settings.slow_consumer_secs,
        headers_after_secs=settings.headers_after_secs,
        to_error=lambda end: _failure(end, admitted.rid, headers),
        is_opening=None if call.is_background else endpoint.is_opening,  # the first event answers at once
        on_begin=on_begin,
        on_closed=on_closed,
        on_slow=on_slow,
    )
    if admitted.attached:
        response.headers.update(_REPLAYED)
    return response


async def _in_background(endpoint: ApiEndpoint, admitted: AdmittedRequest, call: Call, tracker: Tracker) -> Response:
    """Answer at once: the request goes on without its client."""
    with admitted.stream, admitted.connection as connection:
        connection.disarm()
        answer = Answer(admitted.rid, call.model, admitted.created_at)
        body = await endpoint.in_background(answer, call, tracker.store, is_repeated=admitted.attached)
    replayed = _REPLAYED if admitted.attached else None
    return Response(orjson.dumps(body), headers=replayed, media_type="application/json")


async def _unary(
    endpoint: ApiEndpoint, request: Request, admitted: AdmittedRequest, call: Call, headers: CallHeaders
) -> Response:
    """Collect the token stream into one body. The client's disconnect ends the request meanwhile."""
    collected = None
    with admitted.stream, admitted.connection as connection, CancelOnDisconnect(ClientConnection.of(request.scope)):
        collected = await _collect(admitted.reader, endpoint.fold())
        connection.disarm()
    if collected is None:
        return Response(status_code=499)  # the client has disconnected and will not read it
    answer, end = collected
    if end.status != Status.COMPLETED:
        raise _failure(end, admitted.rid, headers)
    body = answer.body(admitted.rid, call.model, int(admitted.created_at), end)
    replayed = _REPLAYED if admitted.attached else None
    return Response(orjson.dumps(body), headers=replayed, media_type="application/json")


def _failure(end: End, rid: str, headers: CallHeaders) -> ApiError:
    return failed_request(end, rid, _retry(headers, ErrorType(end.error_type)))


def _retry(headers: CallHeaders, failure: ErrorType) -> bool | None:
    """Return whether repeating the identical call may succeed; None to decide by the HTTP status."""
    if headers.idempotency_key is not None:
        # The key names this request: a repeated call attaches to it. It helps only where the connection to the answer
        # was lost; the outcome of a request that has ended does not change.
        return ERROR_RESPONSES[failure].status == 503
    # A request id can be used once: a repeated call with the client's own id would be refused with 409.
    return False if headers.request_id is not None else None


async def _collect(reader: TokenReader, answer: Fold) -> tuple[Fold, End]:
    def take(tokens: Tokens) -> bool:
        answer.add(tokens.events)
        return True

    reader.on_events = take
    while True:
        item: Any = await reader.next()
        if isinstance(item, Tokens):
            answer.add(item.events)
        elif isinstance(item, End):
            return answer, item
