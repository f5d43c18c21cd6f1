"""Build the descriptions of the calls of the HTTP API, for `GET /openapi.json`."""

from __future__ import annotations

from frontend.routes.json_schema import RID, SECS, Schema, one_of, ref
from lifecycle.tracking.idempotency import KEY
from lifecycle.types import OnDisconnect
from lifecycle.webhooks.target import MAX_URL_CHARS

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"
_WHY = {
    400: "invalid JSON, field, header or parameter, or a parameter that the model's engine does not take",
    401: "the API key is missing or unknown",
    403: "the call needs an API key with the role operator, or another site's page sent it",
    404: "unknown or expired",
    408: "the head or the body did not arrive in time, or the client did not read the response",
    409: "the request id is in use, or the replica drains",
    413: "the body is too large",
    414: "the URL is too long",
    421: "without API keys: the Host is not this machine",
    422: "the Idempotency-Key was used with another body",
    429: "the API key has reached one of its limits; repeat the call after Retry-After",
    431: "the head of the call, or the headers for the engine, are too large",
    499: "cancelled before the response began",
    500: "the engine failed, or an internal error",
    503: "no worker, draining, queue full or Redis unavailable; repeat the call after Retry-After",
    504: "a timeout before the response began",
}
_OF_EVERY_CALL = (400, 408, 414, 421, 431, 500)


def starting_call(call: str, answers: Schema, summary: str, *, error: str = "Error") -> Schema:
    """Describe a call that starts a request. `error` names the schema of its errors."""
    headers = {
        "X-Request-Id": RID,
        "X-Parent-Request-Id": RID,
        "Idempotency-Key": {"type": "string", "pattern": f"^{KEY.pattern}$"},
        "X-On-Disconnect": one_of(*OnDisconnect),
        "X-Disconnect-Grace-Secs": SECS,
        "X-Queue-Timeout-Secs": SECS | {"exclusiveMinimum": 0},
        "X-First-Token-Timeout-Secs": SECS | {"exclusiveMinimum": 0},
        "X-Deadline-Secs": SECS | {"exclusiveMinimum": 0},
        "X-Webhook-Url": {"type": "string", "format": "uri", "maxLength": MAX_URL_CHARS},
    }
    codes = (404, 408, 409, 413, 422, 429, 431, 499, 503, 504)
    return describe(summary, {"200": answers}, *codes, body=ref(call), headers=headers, error=error)


def describe(
    summary: str,
    answers: Schema,
    *codes: int,
    query: dict[str, Schema] | None = None,
    headers: dict[str, Schema] | None = None,
    body: Schema | None = None,
    body_required: bool = True,
    error: str = "Error",
) -> Schema:
    """Describe a call: its parameters, its body, its answers, and the errors with these statuses."""
    named = [
        (place, name, schema)
        for place, group in (("query", query), ("header", headers))
        for name, schema in (group or {}).items()
    ]
    operation: Schema = {
        "summary": summary,
        "parameters": [{"name": name, "in": place, "schema": schema} for place, name, schema in named],
        "responses": failures(*_OF_EVERY_CALL, *codes, error=error) | answers,
    }
    if body is not None:
        operation["requestBody"] = {"required": body_required, "content": {JSON: {"schema": body}}}
    return operation


def failures(*codes: int, error: str = "Error") -> Schema:
    """Describe the errors with these statuses. `error` names their schema."""
    return {str(code): answered(_WHY[code], {JSON: {"schema": ref(error)}}) for code in sorted(codes)}


def success(schema: Schema, media_type: str = JSON) -> Schema:
    """Describe the answer of a call that succeeds."""
    return {"200": answered("success", {media_type: {"schema": schema}})}


def answered(description: str, content: Schema) -> Schema:
    """Describe one answer."""
    headers = {"X-Request-Id": {"schema": RID, "required": True}}
    return {"description": description, "headers": headers, "content": content}


def path_parameter(name: str, schema: Schema) -> Schema:
    """Describe a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}
