"""Serve the calls that start a request, of every endpoint: as one body, or as an event stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.endpoints import ENDPOINTS
from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call, Fold
from frontend.endpoints.stream import TokenStreamResponse
from frontend.transport import params
from frontend.transport.call_headers import CallHeaders
from frontend.transport.deps import check_reader_limit, get_caller, get_tracker
from frontend.transport.headers import headers_of
from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.cancel_on_disconnect import CancelOnDisconnect
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError, failed_request
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import AdmissionRequest, AdmittedRequest, Rejected
from lifecycle.tracking.idempotency import Idempotency
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType, Labels, RequestType, Status

router = APIRouter()

_REJECTIONS = {
    "draining": "This frontend is draining; send the call to another frontend",
    "full": "The queue of this model is full; repeat the call later",
    "contended": "Other calls with this Idempotency-Key are being admitted; repeat the call later",
}
_REPLAYED = {"idempotent-replayed": "true"}


def _route(endpoint: ApiEndpoint) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return await _serve(request, endpoint)

    serve.__doc__ = f"{endpoint.__doc__} Raises ApiError, StoreError, Fenced or ClientDisconnect."
    return serve


ROUTES = {path: _route(endpoint) for endpoint in ENDPOINTS for path in endpoint.paths}
for path, route in ROUTES.items():
    router.post(path)(route)


async def _serve(request: Request, endpoint: ApiEndpoint) -> Response:
    tracker = get_tracker(request)
    call, headers = await _read_call(request, endpoint, tracker)
    admitted = await _admit(request, endpoint, call, headers, tracker)
    if call.request_type is RequestType.STREAM:
        return _streaming(endpoint, admitted, call, headers, tracker)
    return await _unary(endpoint, request, admitted, call, headers)


async def _read_call(request: Request, endpoint: ApiEndpoint, tracker: Tracker) -> tuple[Call, CallHeaders]:
    try:
        body = await params.read_body(request, tracker.settings.max_body_bytes)
        return endpoint.parse(body), CallHeaders.parse(headers_of(request.scope), tracker.settings)
    except ApiError as error:
        tracker.metrics.rejections.labels("", endpoint.name, error.error_type).inc()
        raise


async def _admit(
    request: Request, endpoint: ApiEndpoint, call: Call, headers: CallHeaders, tracker: Tracker
) -> AdmittedRequest:
    """Admit a request for this call. Raises ApiError when the call is refused; no request has been started then."""
    model = ""
    try:
        admission, idempotency = _admission_request(request, call, headers)
        state = await tracker.model_state(call.model)
        if state == "unknown":
            raise ApiError(
                ErrorType.NOT_FOUND, f"The model {call.model!r} does not exist", code="model_not_found", param="model"
            )
        model = call.model  # the model exists, so its name may become a metric's label
        if state == "known" and not tracker.settings.queue_without_workers:
            message = f"No worker serves the model {call.model!r} at the moment; repeat the call later"
            raise ApiError(ErrorType.UNAVAILABLE, message, code="no_worker")
        outage = await tracker.find_outage(call.model)
        if outage is not None:
            raise ApiError(
                ErrorType.UNAVAILABLE,
                outage.message,
                code="no_healthy_worker",
                retry_after_secs=max(1.0, outage.retry_after_secs),
            )
        missing = await tracker.find_unsupported(call.model, call.endpoint, call.gated)
        if missing is not None:
            raise ApiError(
                ErrorType.VALIDATION,
                missing.message(call.model),
                code="unsupported_endpoint" if missing.parameter is None else "unsupported_parameter",
                param=missing.parameter,
            )
        check_reader_limit(request)
        try:
            if idempotency is None:
                return await tracker.admit(admission)
            rid = await idempotency.name(tracker.store, endpoint.id_prefix, headers.request_id)
            request.state.request_id = rid
            return await idempotency.admit(tracker, admission._replace(rid=rid))
        except Rejected as rejected:
            raise _refusal(rejected.reason, request.state.request_id) from None
    except ApiError as error:
        tracker.metrics.rejections.labels(model, call.endpoint, str(error.code or error.error_type)).inc()
        raise


def _admission_request(
    request: Request, call: Call, headers: CallHeaders
) -> tuple[AdmissionRequest, Idempotency | None]:
    body, caller, key = orjson.dumps(call.body), get_caller(request), headers.idempotency_key
    idempotency = Idempotency.of(key, call.endpoint, body, caller.name) if key else None
    admission = AdmissionRequest(
        rid=request.scope["state"]["request_id"],
        labels=Labels(call.model, call.endpoint, call.request_type),
        body=body,
        on_disconnect=headers.on_disconnect,
        grace_secs=headers.grace_secs,
        limits=headers.limits,
        traceparent=headers.traceparent,
        idempotency=idempotency.mark if idempotency else "",
        owner=caller.name,
        inflight_limit=caller.inflight_limit,
        needs=call.gated,
        headers=headers.forwarded,
    )
    return admission, idempotency


def _refusal(reason: str, rid: str) -> ApiError:
    if reason == "exists":
        return ApiError(
            ErrorType.VALIDATION,
            f"The request id {rid!r} is in use; send another X-Request-Id, or none",
            status=409,
            code="request_id_in_use",
            param="X-Request-Id",
        )
    if reason == "other_body":
        return ApiError(
            ErrorType.VALIDATION,
            "This Idempotency-Key was used with another body; use a new key for a new request",
            status=422,
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    if reason == "limit":
        message = "The API key has reached its limit of inflight requests; repeat the call when one has ended"
        return ApiError(ErrorType.OVERLOAD, message, code="inflight_limit")
    return ApiError(ErrorType.UNAVAILABLE, _REJECTIONS[reason], code="queue_full" if reason == "full" else reason)


def _streaming(
    endpoint: ApiEndpoint, admitted: AdmittedRequest, call: Call, headers: CallHeaders, tracker: Tracker
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
        slow_consumer_secs=tracker.settings.slow_consumer_secs,
        headers_after_secs=tracker.settings.headers_after_secs,
        to_error=lambda end: _failure(end, admitted.rid, headers),
        is_opening=endpoint.is_opening,
        on_begin=on_begin,
        on_closed=on_closed,
        on_slow=on_slow,
    )
    if admitted.attached:
        response.headers.update(_REPLAYED)
    return response


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
