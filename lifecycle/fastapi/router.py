"""Serve all requests of the cluster from an application: list, read, stream and cancel them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifecycle.application.tracker import Tracker
from lifecycle.clients import arguments
from lifecycle.errors import InvalidValue, LifecycleError, NotFound
from lifecycle.fastapi.caller import ANYBODY, Caller, KeyRole
from lifecycle.fastapi.connected import Connected, Owner, owner_of
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.instructions import instruct
from lifecycle.fastapi.integers import integer_field, parse_integer
from lifecycle.fastapi.run_response import RunResponse, prefers_lines
from lifecycle.fastapi.tracked import refusal
from lifecycle.records import Cancelled
from lifecycle.types import ErrorType, ReplicaAction, RequestRecord, Status

_LIMIT_DEFAULT, _LIMIT_MAX = 100, 1000
_WAIT_MAX_MS = 30_000
_BODY_BYTES = 64 * 1024


def router(owner: Owner | None = None) -> APIRouter:
    """Return routes for `/v1/requests…`, `/v1/inflight` and `/v1/replicas`, as a frontend of the product has them.

    `owner` tells whose a call is, from its `Request`: callers then see and end their own requests only; a call of
    nobody's gets 401. Without `owner` these are served, with all rights: callers from a loopback address, Starlette's
    test client, and operators' keys of `LIFECYCLE_API_KEYS`. Callers over a Unix socket need such a key. Behind a proxy
    on the same host every caller may come from a loopback address, so pass `owner` there. The `Host` is not checked.
    """
    routes = APIRouter(prefix="/v1")
    for methods, path, serve in _ROUTES:
        route = _guarded(serve, owner)
        routes.add_api_route(path, route, methods=methods, name=serve.__name__, include_in_schema=False)
    return routes


def _guarded(serve: Any, owner: Owner | None) -> Any:
    async def route(request: Request) -> Response:
        try:
            connected = Connected.of(request)
            caller = await _caller(request, owner, connected)
            answer: Response = await serve(request, connected.tracker, caller)
            return answer
        except ApiError as error:
            return Response(error.body(), error.status, error.headers())
        except LifecycleError as refused:
            return refusal(refused)

    return route


async def _caller(request: Request, owner: Owner | None, connected: Connected) -> Caller:
    """Return who calls. Raises ApiError, 401 or 403."""
    if owner is not None:
        name = await owner_of(owner, request)
        if not name:
            raise ApiError(ErrorType.VALIDATION, "This call needs to be somebody's", status=401)
        return Caller(name, KeyRole.CLIENT)
    presented = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
    key = connected.keyring.find(presented) if connected.keyring is not None and presented else None
    if key is not None and key.caller.role is KeyRole.OPERATOR:
        return key.caller
    if _is_local(request):
        return ANYBODY
    raise ApiError(
        ErrorType.VALIDATION,
        "Only callers from a loopback address and operators may make this call; others need router(owner=…)",
        status=403,
        code="insufficient_permissions",
    )


def _is_local(request: Request) -> bool:
    """Return whether the call comes from a loopback address, or from Starlette's test client.

    Of a call over a Unix socket no address is known: a proxy may have sent it, for anybody.
    """
    client = request.scope.get("client")
    host: str = client[0] if client else ""
    if host == "testclient":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _must_be_operator(caller: Caller) -> None:
    if caller.owner:
        raise ApiError(ErrorType.VALIDATION, "This call is for operators", status=403, code="insufficient_permissions")


async def _inflight(request: Request, tracker: Tracker, caller: Caller) -> Response:
    _must_be_operator(caller)
    return _json((await tracker.inflight(request.query_params.get("model", ""))).to_json())


async def _replicas(request: Request, tracker: Tracker, caller: Caller) -> Response:
    _must_be_operator(caller)
    return _json({"object": "list", "data": [replica.to_json() for replica in await tracker.replicas()]})


async def _instruct(request: Request, tracker: Tracker, caller: Caller) -> Response:
    _must_be_operator(caller)
    action = ReplicaAction(request.url.path.rpartition("/")[2])
    return await instruct(tracker._core.store, request.path_params["id"], action, caller.canceller)


async def _list(request: Request, tracker: Tracker, caller: Caller) -> Response:
    query = request.query_params
    limit = parse_integer(query.get("limit"), "limit", _LIMIT_DEFAULT, 1, _LIMIT_MAX)
    visible = caller.visible_owner(query.get("owner", ""))
    model, frontend, worker = (query.get(name, "") for name in ("model", "frontend", "worker"))
    status, named = query.get("status", ""), query.get("endpoint", "")
    chosen = arguments.filter_of(status, model, named, frontend, worker, visible or "")
    after = query.get("after", "")
    await _check_page_start(tracker, caller, after)
    records, more = ([], False) if visible is None else await tracker._queries.page(chosen, limit, after)
    return _json({"object": "list", "data": [record.to_json() for record in records], "has_more": more})


async def _read(request: Request, tracker: Tracker, caller: Caller) -> Response:
    record = await _visible(tracker, caller, request.path_params["rid"])
    return _json((await tracker.get(record.id) if record.status is Status.QUEUED else record).to_json())


async def _stream(request: Request, tracker: Tracker, caller: Caller) -> Response:
    record = await _visible(tracker, caller, request.path_params["rid"])
    after = request.headers.get("last-event-id") or request.query_params.get("after") or None
    if (
        record.status.terminal
        and after is not None
        and await tracker._queries.has_nothing_after(record.id, arguments.position(after))
    ):
        return Response(status_code=204)  # a browser's EventSource does not connect again
    resumed = await tracker.resume(record.id, after)
    lines = prefers_lines(request.headers.get("accept", ""))
    return RunResponse(resumed, lines=lines, slow_consumer_secs=tracker.settings.slow_consumer_secs)


async def _cancel(request: Request, tracker: Tracker, caller: Caller) -> Response:
    record = await _visible(tracker, caller, request.path_params["rid"])
    fields: Mapping[str, Any] = {**request.query_params, **await _body(request)}
    reason = arguments.reason(fields.get("reason"))
    wait_ms = integer_field(fields.get("wait_ms"), "wait_ms", 0, 0, _WAIT_MAX_MS)
    mode = arguments.cancel_mode(fields.get("mode"))
    record = await tracker.cancel(record.id, mode, reason, wait_ms / 1000, by=caller.canceller)
    return _json(record.to_json(), 200 if record.status.terminal else 202)


async def _cancel_many(request: Request, tracker: Tracker, caller: Caller) -> Response:
    fields = await _body(request)
    mode = arguments.cancel_mode(fields.pop("mode", None))
    reason = arguments.reason(fields.pop("reason", None))
    dry_run, after = arguments.dry_run(fields.pop("dry_run", None)), str(fields.pop("after", None) or "")
    selector = arguments.selector_of(fields)
    await _check_page_start(tracker, caller, after)
    owner = caller.visible_owner(str(selector.get("owner", "")))
    if owner is None:
        return _json(Cancelled(0, 0, dry_run, False, ()).to_json())
    selector |= {"owner": owner} if owner else {}
    found = await tracker._queries.cancel_many(
        selector, mode, reason, dry_run, after, by=caller.canceller, via=tracker.id
    )
    return _json(found.to_json())


async def _timeline(request: Request, tracker: Tracker, caller: Caller) -> Response:
    record = await _visible(tracker, caller, request.path_params["rid"])
    return _json(await tracker._queries.timeline(record.id, caller.may_see))


async def _tree(request: Request, tracker: Tracker, caller: Caller) -> Response:
    record = await _visible(tracker, caller, request.path_params["rid"])
    return _json(await tracker._queries.tree(record.id, caller.may_see))


async def _visible(tracker: Tracker, caller: Caller, rid: str) -> RequestRecord:
    """Return the record if it exists and the caller may see it. Raises NotFound otherwise."""
    record = await tracker._queries.get_without_wait(arguments.request_id(rid))
    if not caller.may_see(record.owner):
        raise NotFound(f"The request {rid!r} is unknown; its record may have expired")
    return record


async def _check_page_start(tracker: Tracker, caller: Caller, rid: str) -> None:
    """Check that the caller may see the request behind which a page starts; '' is the first page. Raises ApiError."""
    try:
        if rid:
            await _visible(tracker, caller, rid)
    except (InvalidValue, NotFound):
        raise ApiError(
            ErrorType.VALIDATION,
            f"after: the request {rid[:128]!r} is unknown or has expired; start again without after",
            param="after",
        ) from None


async def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object of the body, `{}` for an empty one. Raises ApiError, 400 or 413."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _BODY_BYTES:
            raise ApiError(ErrorType.VALIDATION, f"The body is larger than {_BODY_BYTES} bytes", status=413)
        parts.append(part)
    text = b"".join(parts).strip()
    try:
        found = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        raise ApiError(ErrorType.VALIDATION, "The body is not valid JSON", param="body") from None
    if not isinstance(found, dict):
        raise ApiError(ErrorType.VALIDATION, "The body must be a JSON object", param="body")
    return found


_ROUTES = (
    (["GET"], "/inflight", _inflight),
    (["GET"], "/replicas", _replicas),
    *((["POST"], f"/replicas/{{id}}/{action}", _instruct) for action in ReplicaAction),
    (["GET"], "/requests", _list),
    (["GET"], "/requests/{rid}", _read),
    (["GET"], "/requests/{rid}/stream", _stream),
    (["GET"], "/requests/{rid}/timeline", _timeline),
    (["GET"], "/requests/{rid}/tree", _tree),
    (["POST"], "/requests/cancel", _cancel_many),
    (["POST"], "/requests/{rid}/cancel", _cancel),
    (["DELETE"], "/requests/{rid}", _cancel),
)
