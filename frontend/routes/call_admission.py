"""Admit the request of a call: check that it can be served, and turn every refusal into its HTTP error."""

from __future__ import annotations

import orjson
from fastapi import Request

from frontend.endpoints.endpoint import ApiEndpoint, Call
from frontend.transport.call_headers import CallHeaders
from frontend.transport.deps import check_reader_limit, get_caller
from frontend.transport.headers import headers_of
from lifecycle.errors import StoreFull
from lifecycle.fastapi.caller import Caller
from lifecycle.fastapi.errors import ApiError, redis_unavailable
from lifecycle.formats.token_estimate import estimate_tokens
from lifecycle.store.new_request import AdmissionRequest, QueuePlace
from lifecycle.store.worker_roster import Missing
from lifecycle.tracking.admission import AdmittedRequest, RefusedParent, Rejected
from lifecycle.tracking.idempotency import Idempotency
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType, Labels, OnDisconnect

_NOT_FOUND = "model_not_found"
_REJECTIONS = {
    "draining": "This frontend is draining; send the call to another frontend",
    "full": "The queue of this model is full for you; repeat the call later",
    "full_model": "The queue of this model is full; repeat the call later",
    "hopeless": "By the estimate the deadline would pass in the queue; repeat the call later, or with more time",
    "contended": "Other calls with this Idempotency-Key are being admitted; repeat the call later",
}


async def with_only_model(call: Call, tracker: Tracker) -> Call:
    """Return the call with the only model that it can mean. Raises ApiError, 400, when there is not exactly one."""
    models = await tracker.find_models(call.endpoint)
    if len(models) == 1:
        model = models[0]
        return call._replace(model=model, body={**call.body, "model": model})
    there = f"{len(models)} models are" if models else "no model is"
    refusal = ApiError(
        ErrorType.VALIDATION,
        f"'model' is required, because {there} served at the moment; GET /v1/models lists them",
        param="model",
    )
    tracker.metrics.rejections.labels("", call.endpoint, refusal.error_type).inc()
    raise refusal


async def admit(
    request: Request, endpoint: ApiEndpoint, call: Call, headers: CallHeaders, tracker: Tracker
) -> AdmittedRequest:
    """Admit a request for this call. Raises ApiError when the call is refused; no request has been started then."""
    key, caller = headers.idempotency_key, get_caller(request)
    idempotency = Idempotency.of(key, call.endpoint, orjson.dumps(call.body), caller.name) if key else None
    try:
        try:
            call = await _servable(endpoint, call, caller, tracker)
        except ApiError as refusal:
            await refuse_known_id(request, tracker, refusal)
            attached = await _attach(request, idempotency, caller, tracker) if idempotency is not None else None
            if attached is None:
                raise
            return attached
        admission = _admission_request(request, caller, endpoint, call, headers)
        try:
            check_reader_limit(request, caller, tracker)
        except ApiError as refusal:
            await refuse_known_id(request, tracker, refusal)
            raise
        try:
            if idempotency is None:
                return await tracker.admit(admission)
            named = request.state.request_id if headers.request_id else None
            rid = await idempotency.name(tracker.store, endpoint.id_prefix, named)
            request.state.request_id = rid
            admission = admission._replace(rid=rid, idempotency=idempotency.mark, openings=endpoint.openings(rid, call))
            return await idempotency.admit(tracker, admission)
        except RefusedParent as refused:
            raise refused_parent(refused) from None
        except Rejected as rejected:
            raise _refusal(rejected, request.state.request_id, tracker) from None
        except StoreFull as full:
            raise redis_unavailable(full) from full
    except ApiError as error:
        model = "" if error.code == _NOT_FOUND else call.model  # as labels of metrics, names of models are bounded
        tracker.metrics.rejections.labels(model, call.endpoint, str(error.code or error.error_type)).inc()
        raise


async def _attach(
    request: Request, idempotency: Idempotency, caller: Caller, tracker: Tracker
) -> AdmittedRequest | None:
    """Attach a call that cannot be served now to the request of an earlier one; None when there is none.

    What the call needs may have gone since then, but that request has it. Raises ApiError.
    """
    known = await idempotency.find(tracker.store)
    if known is None:
        return None
    check_reader_limit(request, caller, tracker)
    attached = await tracker.attach(known)
    if attached is not None:
        request.state.request_id = attached.rid
    return attached


async def refuse_known_id(request: Request, tracker: Tracker, refusal: ApiError) -> None:
    """Raise ApiError (409) in place of a refusal that may pass, when the call brings an id of its own that is known.

    One with an Idempotency-Key is answered by the request that it repeats instead.
    """
    headers, rid = headers_of(request.scope), request.state.request_id
    brings_id = tracker.settings.request_id_header and "x-request-id" in headers and "idempotency-key" not in headers
    if brings_id and refusal.status in (429, 503) and await tracker.store.is_known(rid):
        raise _id_in_use(rid) from None


async def _servable(endpoint: ApiEndpoint, call: Call, caller: Caller, tracker: Tracker) -> Call:
    """Return the call with what it refers to. Raises ApiError when it cannot be served."""
    is_served = tracker.is_served(call.model, call.endpoint, call.gated)
    if not is_served:
        await _check_model(call, tracker)
    given = call
    call = await endpoint.prepare(call, tracker.store, caller.may_see, tracker.settings.max_body_bytes)
    if not (is_served and call is given) and not tracker.is_served(call.model, call.endpoint, call.gated):
        missing = await tracker.find_unsupported(call.model, call.endpoint, call.gated)
        if missing is not None:
            raise _unsupported(missing, call.model, endpoint)
    return call


async def _check_model(call: Call, tracker: Tracker) -> None:
    """Raise ApiError: 404 for a model that is unknown, 503 for one that no worker can serve at the moment."""
    state = await tracker.model_state(call.model)
    if state == "unknown":
        raise ApiError(ErrorType.NOT_FOUND, f"The model {call.model!r} does not exist", code=_NOT_FOUND, param="model")
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


def _unsupported(missing: Missing, model: str, endpoint: ApiEndpoint) -> ApiError:
    """Return the error 400 for a call that no living worker of the model takes, in the endpoint's own terms."""
    param = missing.parameter and endpoint.parameters.get(missing.parameter, missing.parameter)
    return ApiError(
        ErrorType.VALIDATION,
        missing._replace(parameter=param).message(model),
        code="unsupported_endpoint" if param is None else "unsupported_parameter",
        param=param,
    )


def _admission_request(
    request: Request, caller: Caller, endpoint: ApiEndpoint, call: Call, headers: CallHeaders
) -> AdmissionRequest:
    rid = request.scope["state"]["request_id"]
    body = orjson.dumps(call.body)
    return AdmissionRequest(
        rid=rid,
        labels=Labels(call.model, call.endpoint, call.request_type),
        body=body,
        on_disconnect=OnDisconnect.CONTINUE if call.is_background else headers.on_disconnect,
        grace_secs=headers.grace_secs,
        limits=headers.limits,
        traceparent=headers.traceparent,
        owner=caller.name,
        inflight_limit=caller.inflight_limit,
        needs=call.gated,
        headers=headers.forwarded,
        webhook_url=headers.webhook_url,
        storage=call.storage,
        include_usage=call.include_usage,
        parent=headers.parent,
        parent_owner=caller.owner,
        openings=endpoint.openings(rid, call),
        place=QueuePlace(
            priority=caller.priority.clamp(call.priority),
            weight=caller.weight,
            estimate=estimate_tokens(call.endpoint, call.body, len(body), call.gated),
            share=caller.queue_share,
        ),
    )


def refused_parent(refused: RefusedParent) -> ApiError:
    """Return the error for a call that was refused because of its parent."""
    param = "X-Parent-Request-Id"
    if refused.reason == "no_parent":
        return ApiError(ErrorType.NOT_FOUND, refused.message, code="parent_not_found", param=param)
    if refused.reason == "parent_ended":
        return ApiError(ErrorType.VALIDATION, refused.message, status=409, code="parent_ended", param=param)
    if refused.reason == "too_deep":
        return ApiError(ErrorType.VALIDATION, refused.message, code="tree_too_deep", param=param)
    return ApiError(ErrorType.OVERLOAD, refused.message, code="too_many_children", param=param)


def _id_in_use(rid: str) -> ApiError:
    return ApiError(
        ErrorType.VALIDATION,
        f"The request id {rid!r} is in use; send another X-Request-Id, or none",
        status=409,
        code="request_id_in_use",
        param="X-Request-Id",
    )


def _refusal(rejected: Rejected, rid: str, tracker: Tracker) -> ApiError:
    reason, after_secs = rejected.reason, rejected.retry_after_secs
    if reason == "exists":
        return _id_in_use(rid)
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
        return ApiError(ErrorType.OVERLOAD, message, code="inflight_limit", retry_after_secs=after_secs)
    if reason == "queue_limit":
        message = "The API key has as much queued for this model as it may; repeat the call later"
        return ApiError(ErrorType.OVERLOAD, message, code="queue_limit", retry_after_secs=after_secs)
    if reason == "full_bytes":
        most = tracker.settings.queue_bytes
        message = f"The bodies of all queued requests may have {most:,} bytes, and have nearly; repeat the call later"
        return ApiError(ErrorType.UNAVAILABLE, message, code="queue_full", retry_after_secs=after_secs)
    return ApiError(
        ErrorType.UNAVAILABLE,
        _REJECTIONS[reason],
        code="queue_full" if reason in ("full", "full_model") else reason,
        retry_after_secs=after_secs,
    )
