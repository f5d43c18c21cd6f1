"""Serve `GET /openapi.json`. The description is written by hand; tests compare it with the routes."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Response

import lifecycle
from frontend.auth.policy import RULES, Level
from frontend.endpoints.forwards.endpoint import FORWARDS
from frontend.routes import overview
from frontend.routes.json_schema import (
    ENDPOINT_NAME,
    LABEL,
    RID,
    STRING,
    TOKEN_ID,
    Schema,
    integer,
    listing,
    one_of,
    ref,
)
from frontend.routes.openapi_messages import MESSAGES, MESSAGES_ERROR
from frontend.routes.openapi_responses import RESPONSES
from frontend.routes.operations import (
    EVENTS,
    JSON,
    TEXT,
    answered,
    describe,
    failures,
    path_parameter,
    starting_call,
    success,
)
from frontend.routes.requests import FORMATS, STATUSES
from frontend.routes.schemas import SCHEMAS
from lifecycle.types import ReplicaAction

router = APIRouter()


@cache
def _document() -> bytes:
    return orjson.dumps(document())


@router.get("/openapi.json", include_in_schema=False)
async def openapi() -> Response:
    """Return the description of the HTTP API."""
    return Response(_document(), media_type=JSON)


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document. Each call's security and errors 401 and 403 follow from the access policy."""
    described = _document_without_keys()
    for name, path in described["paths"].items():
        for method in path.keys() & {"post", "delete"}:
            path[method]["responses"] |= failures(403, error=MESSAGES_ERROR if name in MESSAGES else "Error")
    for rule in RULES:
        for method in rule.methods.lower().split() if rule.level is not Level.ANYBODY else ():
            operation = described["paths"].get(rule.path.replace(":path", ""), {}).get(method)
            if operation is not None:
                codes = (401, 403) if rule.level is Level.OPERATOR else (401,)
                error = MESSAGES_ERROR if rule.path in MESSAGES else "Error"
                operation["responses"] |= failures(*codes, error=error)
                operation["security"] = [{"key": []}]
    return described


def _document_without_keys() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "lifecycle", "version": lifecycle.__version__},
        "paths": {
            "/v1/chat/completions": {"post": _completion("ChatCall", "ChatCompletion", "Complete a conversation")},
            "/v1/completions": {"post": _completion("TextCall", "TextCompletion", "Complete a text")},
            **RESPONSES,
            **MESSAGES,
            **_forwards(),
            "/v1/models": {
                "get": describe("List the models that live workers serve", success(listing(ref("Model"))), 503)
            },
            "/v1/models/{name}": {
                "parameters": [path_parameter("name", STRING)],
                "get": describe("Read one model", success(ref("Model")), 404, 503),
            },
            "/v1/requests": {"get": _listing()},
            "/v1/requests/cancel": {
                "post": describe(
                    "Cancel all requests that match, a page at a time",
                    success(ref("Cancelled")),
                    413,
                    503,
                    body=ref("Selector"),
                )
            },
            "/v1/requests/{rid}": {
                "parameters": [path_parameter("rid", RID)],
                "get": describe("Read the record", success(ref("Request")), 404, 503),
                "delete": _cancel(),
            },
            "/v1/requests/{rid}/cancel": {"parameters": [path_parameter("rid", RID)], "post": _cancel()},
            "/v1/requests/{rid}/timeline": {
                "parameters": [path_parameter("rid", RID)],
                "get": describe(
                    "Read what happened to a request, in order", success(listing(ref("TimelineEntry"))), 404, 503
                ),
            },
            "/v1/requests/{rid}/tree": {
                "parameters": [path_parameter("rid", RID)],
                "get": describe(
                    "Read which requests led to a request, and which it has started", success(ref("Tree")), 404, 503
                ),
            },
            "/v1/requests/{rid}/stream": {"parameters": [path_parameter("rid", RID)], "get": _stream()},
            "/v1/inflight": {
                "get": describe("Count inflight requests", success(ref("Inflight")), 503, query={"model": LABEL})
            },
            "/v1/replicas": {
                "get": describe("List the replicas that hold a lease", success(listing(ref("Replica"))), 503)
            },
            **_instructions(),
            "/v1/queue": {
                "get": describe(
                    "List what waits, by model and owner",
                    success(listing(ref("ModelQueue"))),
                    503,
                    query={"model": LABEL},
                )
            },
            "/v1/overview": {"get": _overview()},
            "/metrics": {"get": describe("Read the metrics in Prometheus's format", success(STRING, TEXT))},
            "/live": {"get": describe("Check that the process runs", success(ref("Health")))},
            "/ready": {"get": _health("Check that requests may be sent here")},
            "/health": {"get": _health("Check as /ready does, with details")},
        },
        "components": {"schemas": SCHEMAS, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _completion(call: str, answer: str, summary: str) -> Schema:
    """Describe a completion call; `stream` in its body selects one of the two kinds of response."""
    answers = answered(
        "the completion, or the event stream", {JSON: {"schema": ref(answer)}, EVENTS: {"schema": ref("Event")}}
    )
    return starting_call(call, answers, summary)


def _forwards() -> dict[str, Schema]:
    """Describe the calls that are forwarded to an engine as they are, by path."""
    answers = answered("the engine's answer, as it is", {JSON: {"schema": {"type": "object"}}})
    return {
        path: {"post": starting_call("ForwardedCall", answers, (endpoint.__doc__ or "").rstrip("."))}
        for endpoint in FORWARDS
        for path in endpoint.paths
    }


_ACTIONS = {
    ReplicaAction.DRAIN: "Tell a replica to finish what it has, and then to leave",
    ReplicaAction.PAUSE: "Tell a worker to take nothing new",
    ReplicaAction.RESUME: "Tell a paused worker to take requests again",
}


def _instructions() -> dict[str, Schema]:
    """Describe the calls that instruct a replica, by path."""
    answers = {"202": answered("the replica, which follows within a heartbeat", {JSON: {"schema": ref("Replica")}})}
    return {
        f"/v1/replicas/{{id}}/{action}": {
            "parameters": [path_parameter("id", STRING)],
            "post": describe(summary, answers, 404, 409, 503),
        }
        for action, summary in _ACTIONS.items()
    }


def _listing() -> Schema:
    query = {
        "status": one_of(*STATUSES),
        "model": LABEL,
        "endpoint": ENDPOINT_NAME,
        "frontend": LABEL,
        "worker": LABEL,
        "owner": LABEL,
        "limit": integer(1, 1000),
        "after": RID,
    }
    answers = success(listing(ref("Request"), has_more={"type": "boolean"}))
    return describe("List the requests of the cluster, newest first", answers, 503, query=query)


def _cancel() -> Schema:
    query: dict[str, Schema] = SCHEMAS["Cancel"]["properties"]
    answers = success(ref("Request")) | {
        "202": answered("cancellation requested, not confirmed yet", {JSON: {"schema": ref("Request")}})
    }
    return describe(
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
    return describe(
        "Replay the token stream from its start, or behind a token, then follow it",
        success(ref("Event"), EVENTS) | {"204": answered("the request has ended, and nothing follows", {})},
        404,
        503,
        query={"after": TOKEN_ID, "format": one_of(*FORMATS)},
        headers={"Last-Event-ID": TOKEN_ID},
    )


def _overview() -> Schema:
    return describe(
        "Follow the state of the cluster, as snapshots and changes",
        success({"type": "object"}, EVENTS),
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
    not_ready = answered("not ready, with the reason", {JSON: {"schema": ref("Health")}})
    return describe(summary, success(ref("Health")) | {"503": not_ready})
