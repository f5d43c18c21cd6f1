"""Serve `GET /openapi.json`. The description is written by hand; tests compare it with the routes."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Response

import lifecycle
from frontend.auth.policy import RULES, Level
from frontend.routes import overview
from frontend.routes.requests import STATUSES
from frontend.routes.schemas import (
    LABEL,
    RID,
    SCHEMAS,
    SECS,
    STRING,
    TOKEN_ID,
    Schema,
    integer,
    listing,
    one_of,
    ref,
)
from lifecycle.tracking.idempotency import KEY
from lifecycle.types import Endpoint, OnDisconnect

router = APIRouter()

_JSON, _EVENTS, _TEXT = "application/json", "text/event-stream", "text/plain"
_WHY = {
    400: "invalid JSON, field, header or parameter, or a parameter that the model's engine does not take",
    401: "the API key is missing or unknown",
    403: "the call needs an API key with the role operator, or another site's page sent it",
    404: "unknown or expired",
    408: "the head or the body did not arrive in time, or the client did not read the response",
    409: "the request id is in use",
    413: "the body is too large",
    414: "the URL is too long",
    421: "without API keys: the Host is not this machine",
    422: "the Idempotency-Key was used with another body",
    429: "the API key has reached its limit of inflight requests; repeat the call after Retry-After",
    431: "the head of the call, or the headers for the engine, are too large",
    499: "cancelled before the response began",
    500: "the engine failed, or an internal error",
    503: "no worker, draining, queue full or Redis unavailable; repeat the call after Retry-After",
    504: "a timeout before the response began",
}
_OF_EVERY_CALL = (400, 408, 414, 421, 431, 500)


@cache
def _document() -> bytes:
    return orjson.dumps(document())


@router.get("/openapi.json", include_in_schema=False)
async def openapi() -> Response:
    """Return the description of the HTTP API."""
    return Response(_document(), media_type=_JSON)


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document. Each call's security and errors 401 and 403 follow from the access policy."""
    described = _document_without_keys()
    for path in described["paths"].values():
        for method in path.keys() & {"post", "delete"}:
            path[method]["responses"] |= _errors(403)
    for rule in RULES:
        for method in rule.methods.lower().split() if rule.level is not Level.ANYBODY else ():
            operation = described["paths"].get(rule.path.replace(":path", ""), {}).get(method)
            if operation is not None:
                codes = (401, 403) if rule.level is Level.OPERATOR else (401,)
                operation["responses"] |= _errors(*codes)
                operation["security"] = [{"key": []}]
    return described


def _document_without_keys() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "lifecycle", "version": lifecycle.__version__},
        "paths": {
            "/v1/chat/completions": {"post": _completion("ChatCall", "ChatCompletion", "Complete a conversation")},
            "/v1/completions": {"post": _completion("TextCall", "TextCompletion", "Complete a text")},
            "/v1/models": {
                "get": _operation("List the models that live workers serve", _ok(listing(ref("Model"))), 503)
            },
            "/v1/models/{name}": {
                "parameters": [_path("name", STRING)],
                "get": _operation("Read one model", _ok(ref("Model")), 404, 503),
            },
            "/v1/requests": {"get": _listing()},
            "/v1/requests/cancel": {
                "post": _operation(
                    "Cancel all requests that match, a page at a time",
                    _ok(ref("Cancelled")),
                    413,
                    503,
                    body=ref("Selector"),
                )
            },
            "/v1/requests/{rid}": {
                "parameters": [_path("rid", RID)],
                "get": _operation("Read the record", _ok(ref("Request")), 404, 503),
                "delete": _cancel(),
            },
            "/v1/requests/{rid}/cancel": {"parameters": [_path("rid", RID)], "post": _cancel()},
            "/v1/requests/{rid}/stream": {"parameters": [_path("rid", RID)], "get": _stream()},
            "/v1/inflight": {
                "get": _operation("Count inflight requests", _ok(ref("Inflight")), 503, query={"model": LABEL})
            },
            "/v1/replicas": {
                "get": _operation("List the replicas that hold a lease", _ok(listing(ref("Replica"))), 503)
            },
            "/v1/overview": {"get": _overview()},
            "/metrics": {"get": _operation("Read the metrics in Prometheus's format", _ok(STRING, _TEXT))},
            "/live": {"get": _operation("Check that the process runs", _ok(ref("Health")))},
            "/ready": {"get": _health("Check that requests may be sent here")},
            "/health": {"get": _health("Check as /ready does, with details")},
        },
        "components": {"schemas": SCHEMAS, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _completion(call: str, answer: str, summary: str) -> Schema:
    """Describe a completion call; `stream` in its body selects one of the two kinds of response."""
    answers = _answer(
        "the completion, or the event stream", {_JSON: {"schema": ref(answer)}, _EVENTS: {"schema": ref("Event")}}
    )
    headers = {
        "X-Request-Id": RID,
        "Idempotency-Key": {"type": "string", "pattern": f"^{KEY.pattern}$"},
        "X-On-Disconnect": one_of(*OnDisconnect),
        "X-Disconnect-Grace-Secs": SECS,
        "X-Queue-Timeout-Secs": SECS | {"exclusiveMinimum": 0},
        "X-First-Token-Timeout-Secs": SECS | {"exclusiveMinimum": 0},
        "X-Deadline-Secs": SECS | {"exclusiveMinimum": 0},
    }
    codes = (404, 408, 409, 413, 422, 429, 431, 499, 503, 504)
    return _operation(summary, {"200": answers}, *codes, body=ref(call), headers=headers)


def _listing() -> Schema:
    query = {
        "status": one_of(*STATUSES),
        "model": LABEL,
        "endpoint": one_of(*Endpoint),
        "frontend": LABEL,
        "worker": LABEL,
        "limit": integer(1, 1000),
        "after": RID,
    }
    answers = _ok(listing(ref("Request"), has_more={"type": "boolean"}))
    return _operation("List the requests of the cluster, newest first", answers, 503, query=query)


def _cancel() -> Schema:
    query: dict[str, Schema] = SCHEMAS["Cancel"]["properties"]
    answers = _ok(ref("Request")) | {
        "202": _answer("cancellation requested, not confirmed yet", {_JSON: {"schema": ref("Request")}})
    }
    return _operation(
        "Cancel one request; options in the query or the body",
        answers,
        404,
        408,
        413,
        503,
        query=query,
        body=ref("Cancel"),
        body_required=False,
    )


def _stream() -> Schema:
    return _operation(
        "Replay the token stream from its start, or behind a token, then follow it",
        _ok(ref("Event"), _EVENTS) | {"204": _answer("the request has ended, and nothing follows", {})},
        404,
        503,
        query={"after": TOKEN_ID},
        headers={"Last-Event-ID": TOKEN_ID},
    )


def _overview() -> Schema:
    return _operation(
        "Follow the state of the cluster, as snapshots and changes",
        _ok({"type": "object"}, _EVENTS),
        503,
        query={
            "order": one_of(*overview.ORDERS),
            "status": one_of(*overview.ACTIVE),
            "outcome": one_of(*overview.OUTCOMES),
            "q": STRING | {"maxLength": overview.MAX_CHARS},
            "rows": integer(1, overview.MAX_ROWS),
        },
    )


def _health(summary: str) -> Schema:
    not_ready = _answer("not ready, with the reason", {_JSON: {"schema": ref("Health")}})
    return _operation(summary, _ok(ref("Health")) | {"503": not_ready})


def _operation(
    summary: str,
    answers: Schema,
    *codes: int,
    query: dict[str, Schema] | None = None,
    headers: dict[str, Schema] | None = None,
    body: Schema | None = None,
    body_required: bool = True,
) -> Schema:
    named = [
        (place, name, schema)
        for place, group in (("query", query), ("header", headers))
        for name, schema in (group or {}).items()
    ]
    operation: Schema = {
        "summary": summary,
        "parameters": [{"name": name, "in": place, "schema": schema} for place, name, schema in named],
        "responses": _errors(*_OF_EVERY_CALL, *codes) | answers,
    }
    if body is not None:
        operation["requestBody"] = {"required": body_required, "content": {_JSON: {"schema": body}}}
    return operation


def _errors(*codes: int) -> Schema:
    return {str(code): _answer(_WHY[code], {_JSON: {"schema": ref("Error")}}) for code in sorted(codes)}


def _ok(schema: Schema, media_type: str = _JSON) -> Schema:
    return {"200": _answer("success", {media_type: {"schema": schema}})}


def _answer(description: str, content: Schema) -> Schema:
    headers = {"X-Request-Id": {"schema": RID, "required": True}}
    return {"description": description, "headers": headers, "content": content}


def _path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}
