"""`POST /v1/chat/completions` and `POST /v1/completions`: validate, admit, then stream or fold."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from frontend.openai_api import validation
from frontend.openai_api.sse import ChunkEncoder, fold
from frontend.openai_api.stream import TokenStreamResponse
from frontend.transport import params
from frontend.transport.deps import get_caller, get_tracker
from frontend.transport.request_id import PREFIXES
from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.cancel_on_disconnect import CancelOnDisconnect
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.headers import headers_of
from lifecycle.settings import Settings
from lifecycle.telemetry import tracing
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import AdmissionRequest, AdmittedRequest, Rejected
from lifecycle.tracking.idempotency import Idempotency
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Endpoint, ErrorType, Labels, RequestType, Status

router = APIRouter()

_REJECTIONS = {
    "draining": "This frontend is draining; another one will take the request",
    "full": "The queue of this model is full",
    "contended": "Other calls with this Idempotency-Key are being admitted",
}
_REPLAYED = {"idempotent-replayed": "true"}


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    return await _complete(request, Endpoint.CHAT_COMPLETIONS)


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    return await _complete(request, Endpoint.COMPLETIONS)


ENDPOINTS = {"/v1/chat/completions": chat_completions, "/v1/completions": completions}


async def _complete(request: Request, endpoint: Endpoint) -> Response:
    tracker = get_tracker(request)
    call = await _validated(request, endpoint, tracker)
    flight = await _admitted(request, call, tracker)
    if call.request_type is RequestType.STREAM:
        return _streaming(flight, call, tracker)
    return await _unary(request, flight, call, tracker)


async def _validated(request: Request, endpoint: Endpoint, tracker: Tracker) -> validation.Call:
    try:
        return validation.parse(endpoint, await params.read_body(request, tracker.settings.max_body_bytes))
    except ApiError as error:
        tracker.metrics.rejections.labels("", endpoint, error.error_type).inc()
        raise


async def _admitted(request: Request, call: validation.Call, tracker: Tracker) -> AdmittedRequest:
    """Raises ApiError; a call that is refused has started no request."""
    model = ""
    try:
        admit, once = _asked(request, call, tracker.settings)
        state = await tracker.model_state(call.model)
        if state == "unknown":
            raise ApiError(
                ErrorType.NOT_FOUND, f"The model {call.model!r} does not exist", code="model_not_found", param="model"
            )
        model = call.model  # known, so it may become a label
        if state == "known" and not tracker.settings.queue_without_workers:
            raise ApiError(ErrorType.UNAVAILABLE, f"No worker serves the model {call.model!r} now", code="no_worker")
        if len(tracker.readers) >= tracker.settings.max_readers:
            raise ApiError(ErrorType.UNAVAILABLE, "This frontend has as many open streams as it may", code="overloaded")
        try:
            if once is None:
                return await tracker.admit(admit)
            rid = await once.name(
                tracker.store, PREFIXES[request.scope["path"]], headers_of(request.scope).get("x-request-id")
            )
            request.state.request_id = rid
            return await once.admit(tracker, admit._replace(rid=rid))
        except Rejected as rejected:
            raise _refusal(rejected.reason, request.state.request_id) from None
    except ApiError as error:
        tracker.metrics.rejections.labels(model, call.endpoint, error.code or error.error_type).inc()
        raise


def _asked(request: Request, call: validation.Call, settings: Settings) -> tuple[AdmissionRequest, Idempotency | None]:
    headers, body = headers_of(request.scope), orjson.dumps(call.body)
    key = params.idempotency_key(headers)
    caller = get_caller(request)
    once = Idempotency.of(key, call.endpoint, body, caller.name) if key else None
    admit = AdmissionRequest(
        rid=request.scope["state"]["request_id"],
        labels=Labels(call.model, call.endpoint, call.request_type),
        body=body,
        on_disconnect=params.on_disconnect(headers, settings),
        grace_secs=params.grace_secs(headers, settings),
        limits=params.limits(headers, settings),
        traceparent=tracing.incoming(headers),
        idempotency=once.mark if once else "",
        owner=caller.name,
        inflight_limit=caller.inflight_limit,
    )
    return admit, once


def _refusal(reason: str, rid: str) -> ApiError:
    if reason == "exists":
        return ApiError(
            ErrorType.VALIDATION,
            f"The request id {rid!r} is in use",
            status=409,
            code="request_id_in_use",
            param="X-Request-Id",
        )
    if reason == "other_body":
        return ApiError(
            ErrorType.VALIDATION,
            "This Idempotency-Key was used with another body; a new request takes a new key",
            status=422,
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    if reason == "limit":
        message = "This key has as many requests inflight as it may"
        return ApiError(ErrorType.OVERLOAD, message, code="inflight_limit")
    return ApiError(ErrorType.UNAVAILABLE, _REJECTIONS[reason], code="queue_full" if reason == "full" else reason)


def _streaming(flight: AdmittedRequest, call: validation.Call, tracker: Tracker) -> Response:
    encoder = ChunkEncoder(call.endpoint, flight.rid, call.model, int(flight.created_at), call.include_usage)

    def on_begin() -> None:
        flight.stream.arm()
        flight.connection.disarm()
        flight.connection.close()

    async def on_closed(gracefully: bool) -> None:
        if gracefully:
            flight.stream.disarm()
        flight.stream.close()

    async def on_slow(message: str) -> None:
        await tracker.fail_slow_consumer(flight.reader, message)

    response = TokenStreamResponse(
        flight.reader,
        encoder,
        request_id=flight.rid,
        include_usage=call.include_usage,
        slow_consumer_secs=tracker.settings.slow_consumer_secs,
        on_begin=on_begin,
        on_closed=on_closed,
        on_slow=on_slow,
    )
    if flight.attached:
        response.headers.update(_REPLAYED)
    return response


async def _unary(request: Request, flight: AdmittedRequest, call: validation.Call, tracker: Tracker) -> Response:
    """Fold the token stream into one body, listening for the client's disconnect all the while."""
    folded = None
    with flight.stream, flight.connection as connection, CancelOnDisconnect(ClientConnection.of(request.scope)):
        folded = await _fold(flight.reader)
        connection.disarm()
    if folded is None:
        return Response(status_code=499)  # nobody is there to read it
    texts, end = folded
    if end.status != Status.COMPLETED:
        failure = ErrorType(end.error_type)
        raise ApiError(failure, end.message, request_id=flight.rid, retry=_may_repeat(request, failure))
    body = fold(
        call.endpoint,
        flight.rid,
        call.model,
        int(flight.created_at),
        "".join(texts),
        end.finish_reason or "stop",
        end.input_tokens,
        end.last,
    )
    return Response(orjson.dumps(body), headers=_REPLAYED if flight.attached else None, media_type="application/json")


def _may_repeat(request: Request, failure: ErrorType) -> bool | None:
    """None for what the status says."""
    headers = headers_of(request.scope)
    if "idempotency-key" in headers:
        return ERROR_RESPONSES[failure].status == 503  # the way to the answer was lost; an end stays what it was
    # An id the client chose is spent: repeating the call under it would only be told so.
    return False if "x-request-id" in headers else None


async def _fold(reader: TokenReader) -> tuple[list[str], End]:
    texts: list[str] = []

    def take(tokens: Tokens) -> bool:
        texts.extend(tokens.texts)
        return True

    reader.on_events = take
    while True:
        item: Any = await reader.next()
        if isinstance(item, Tokens):
            texts += item.texts
        elif isinstance(item, End):
            return texts, item
