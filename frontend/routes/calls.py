"""Serve the calls that start a request, of every endpoint: as one body, or as an event stream."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from frontend.endpoints import ENDPOINTS
from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call, Fold
from frontend.endpoints.priority import with_priority
from frontend.endpoints.stream import TokenStreamResponse
from frontend.routes.call_admission import admit, refuse_known_id, with_only_model
from frontend.transport import params
from frontend.transport.call_headers import CallHeaders
from frontend.transport.deps import get_tracker
from frontend.transport.fast_path import Route
from frontend.transport.headers import headers_of
from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.cancel_on_disconnect import CancelOnDisconnect
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError, failed_request
from lifecycle.fastapi.json_response import JsonResponse
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import AdmittedRequest
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType, Event, RequestType, Status

router = APIRouter()

_STREAM = RequestType.STREAM  # a global name: looking a member up in its enum is slow
_REPLAYED = {"idempotent-replayed": "true"}


def _route(endpoint: ApiEndpoint) -> Route:
    async def serve(request: Request) -> Response:
        """Serve one call of the endpoint. Raises ApiError, StoreError, Fenced or ClientDisconnect."""
        tracker = get_tracker(request)
        call, headers = await _read_call(request, endpoint, tracker)
        if not call.model:
            call = await with_only_model(call, tracker)
        admitted = await admit(request, endpoint, call, headers, tracker)
        if call.request_type is _STREAM:
            return _CallResponse(endpoint, admitted, call, headers, tracker)
        if call.is_background:
            return await _in_background(endpoint, admitted, call, tracker)
        return await _unary(endpoint, request, admitted, call, headers)

    return serve


ROUTES = {path: _route(endpoint) for endpoint in ENDPOINTS for path in endpoint.paths}
for path, route in ROUTES.items():
    router.post(path)(route)


async def _read_call(request: Request, endpoint: ApiEndpoint, tracker: Tracker) -> tuple[Call, CallHeaders]:
    settings = tracker.settings
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


class _CallResponse(TokenStreamResponse):
    """Stream the events of the request that a call has started, or has attached to."""

    def __init__(
        self, endpoint: ApiEndpoint, admitted: AdmittedRequest, call: Call, headers: CallHeaders, tracker: Tracker
    ) -> None:
        encoder = endpoint.encoder(Answer(admitted.rid, call.model, admitted.created_at), call)
        super().__init__(tracker, admitted.reader, encoder, tracker.settings.headers_after_secs)
        self._admitted = admitted
        self._call_headers = headers
        self._begins = None if call.is_background else endpoint.is_opening  # there the first event answers at once
        if admitted.attached:
            self.headers.update(_REPLAYED)

    def on_begin(self) -> None:
        self._admitted.stream.arm()
        self._admitted.connection.disarm()
        self._admitted.connection.close()

    def is_opening(self, event: Event) -> bool:
        return self._begins is not None and self._begins(event)

    def error_of(self, end: End) -> ApiError:
        return _failure(end, self._admitted.rid, self._call_headers)

    async def on_closed(self, gracefully: bool) -> None:
        if gracefully:
            self._admitted.stream.disarm()
        self._admitted.stream.close()


async def _in_background(endpoint: ApiEndpoint, admitted: AdmittedRequest, call: Call, tracker: Tracker) -> Response:
    """Answer at once: the request goes on without its client."""
    with admitted.stream, admitted.connection as connection:
        connection.disarm()
        answer = Answer(admitted.rid, call.model, admitted.created_at)
        body = await endpoint.in_background(answer, call, tracker.store, is_repeated=admitted.attached)
    replayed = _REPLAYED if admitted.attached else None
    return JsonResponse(body, headers=replayed)


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
    return JsonResponse(body, headers=replayed)


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
