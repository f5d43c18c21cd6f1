"""Write the errors: the types of failed requests, and the codes of calls that were refused before admission."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from frontend.routes.call_admission import _REJECTIONS
from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import ErrorType
from tests.reference.table import code, items, table

_PASSES_ON = {"_forbidden": (403, ErrorType.VALIDATION)}  # functions that take the code as their second argument
ROOT = Path(__file__).parents[2]
HTTP_PACKAGES = (ROOT / "frontend", ROOT / "lifecycle" / "fastapi")

# The cause of each type, and what to do about it.
TYPES = {
    ErrorType.VALIDATION: ("The call is invalid.", "Correct what `param` names; repeating the call changes nothing."),
    ErrorType.NOT_FOUND: (
        "The model, request or path does not exist, or the events of a request are no longer stored.",
        "A request's record may have expired, or its content was deleted.",
    ),
    ErrorType.OVERLOAD: (
        "A limit of the caller is reached, or the answer grew past `LIFECYCLE_MAX_OUTPUT_BYTES`.",
        "Repeat the call after `Retry-After`. If the `type` is `output_too_large` (status 500, `x-should-retry: "
        "false`), ask for a shorter answer, for example with `max_tokens`.",
    ),
    ErrorType.UNAVAILABLE: (
        "There is no worker, the queue is full, the frontend is draining, or Redis is unavailable for too long.",
        "Repeat the call after `Retry-After`, and run `lifecycle doctor`.",
    ),
    ErrorType.CANCELLED: (
        "The request was cancelled by its id, or because its client disconnected.",
        "The record's `cancel_reason` has the reason.",
    ),
    ErrorType.RESPONSE_TIMEOUT: (
        "The worker got no token for `LIFECYCLE_BACKEND_STREAM_TIMEOUT_SECS`, or the frontend for twice that time.",
        "The engine hangs: see the worker's log.",
    ),
    ErrorType.QUEUE_TIMEOUT: (
        "No worker started the request within `LIFECYCLE_QUEUE_TIMEOUT_SECS`.",
        "Add workers, or raise the limit.",
    ),
    ErrorType.FIRST_TOKEN_TIMEOUT: (
        "No token came within `LIFECYCLE_FIRST_TOKEN_TIMEOUT_SECS`.",
        "The prefill is slow, or the engine has too many requests: lower `LIFECYCLE_CONCURRENCY`.",
    ),
    ErrorType.DEADLINE: (
        "The request did not end within `LIFECYCLE_DEADLINE_SECS`.",
        "Raise the limit, or ask for a shorter answer with `max_tokens`.",
    ),
    ErrorType.WORKER_LOST: (
        "The worker died or drained, and no other worker could continue the request.",
        "Repeat the call; the worker's log or the kernel's log says why the worker died.",
    ),
    ErrorType.FRONTEND_LOST: (
        "The frontend died, and the request had no reader at another frontend.",
        "Repeat the call, preferably with an `Idempotency-Key`.",
    ),
    ErrorType.STATE_LOST: (
        "Redis lost its data, or tokens of this request.",
        "Repeat the call; to prevent this, enable the append-only file.",
    ),
    ErrorType.SLOW_CONSUMER: (
        "The client read nothing for `LIFECYCLE_SLOW_CONSUMER_SECS`.",
        "If the request has `X-On-Disconnect: continue` or another reader, resume behind the last token.",
    ),
    ErrorType.INTERNAL: (
        "The engine raised an exception, or the product has a bug.",
        "The message is the engine's own; see also the worker's log.",
    ),
}
CODES = {
    "body_limit": "the client's name has its share of request bodies that have not arrived completely",
    "frontend_body_limit": "the frontend has its limit of request bodies that have not arrived completely",
    "reader_limit": "the client's name has half of `LIFECYCLE_MAX_READERS` open streams at this frontend",
    "call_timeout": "the head or the body did not arrive in time; see `LIFECYCLE_HEAD_TIMEOUT_SECS`",
    "head_too_large": "the head of the call, or what follows its body, is larger than 64 KiB",
    "no_descriptors": "the frontend has no descriptors left for another connection; repeat the call",
    "url_too_long": "the URL is larger than 64 KiB",
    "host_not_allowed": "without API keys a frontend serves calls to `localhost` only; see `LIFECYCLE_ALLOWED_HOSTS`",
    "origin_not_allowed": "a browser asked for a page whose origin is not in `LIFECYCLE_CORS_ORIGINS`",
    "body_too_large": "the body is larger than `LIFECYCLE_MAX_BODY_BYTES`",
    "cross_origin": "another site's page sent the call, with a log-in's cookie or to a frontend without API keys",
    "content_deleted": "the events of the request were deleted, or removed to make room for newer ones",
    "contended": "other calls with this `Idempotency-Key` are being admitted; repeat it",
    "draining": "this frontend is draining; another one accepts the call",
    "headers_too_large": "the headers that `LIFECYCLE_FORWARD_HEADERS` selects are too large",
    "hopeless": "by the estimate the deadline would pass in the queue (`LIFECYCLE_REFUSE_HOPELESS`)",
    "idempotency_key_reused": "the `Idempotency-Key` was used with another body; use a new one",
    "inflight_limit": "the inflight limit of this API key is reached",
    "insufficient_permissions": "the call needs an operator's API key",
    "invalid_api_key": "the API key is missing or unknown: `Authorization: Bearer KEY`, or `x-api-key: KEY`",
    "lease_lost": "this frontend's lease expired; it comes back under a new id",
    "memory_full": "the memory of Redis is nearly full: only what runs goes on",
    "model_not_found": "no worker has served this model",
    "no_keys": "there are no API keys, so there is no log-in",
    "no_healthy_worker": "no worker of the model can serve; `Retry-After` is the next probe",
    "not_a_worker": "only a worker can pause and resume; a frontend can be drained",
    "no_worker": "the model is known, but has no worker at present",
    "overloaded": "this frontend has reached its limit of streams or dashboard viewers",
    "parent_ended": "the request that `X-Parent-Request-Id` names failed, or is being cancelled; give up",
    "parent_not_found": "the request that `X-Parent-Request-Id` names does not exist, or is another owner's",
    "previous_response_not_found": "`previous_response_id` names none that can be continued, see the message",
    "queue_full": "the queue is full for this owner, for this model, or in bytes ([limits](../queue.md#limits))",
    "queue_limit": "the owner has as much queued for this model as its [key](../queue.md#limits) may",
    "redis_unavailable": "Redis does not answer, is loading its data, or is read-only",
    "replica_draining": "the replica drains, which nothing undoes; start another one in its place",
    "replica_not_found": "no living replica has this id; the message says whether it has left, or was lost",
    "request_id_in_use": "the `X-Request-Id` is in use; send a new one, or none",
    "request_not_found": "the request does not exist, or its record has expired",
    "response_not_found": "the response does not exist, has expired, or was deleted",
    "response_not_in_background": "only a response that was started with `background: true` can be cancelled",
    "too_many_children": "the request that `X-Parent-Request-Id` names has 1,000 requests inflight",
    "too_many_references": "`input` refers to more than 1000 items; send the items themselves",
    "tree_too_deep": "the request that `X-Parent-Request-Id` names is at the 16th level of its tree",
    "unsupported_endpoint": "no live worker of the model serves the endpoint of the call",
    "unsupported_parameter": "no live worker of the model accepts `param`",
}


def types() -> str:
    """Return a table of all error types, and a list of their causes and remedies."""
    rows = [
        (code(kind), str(shape.status), code(shape.type), "yes" if ApiError(kind, "").retry else "no")
        for kind, shape in ERROR_RESPONSES.items()
    ]
    heads = ("`error_type`", "status, and `code` of the frame", "`type`", "repeated by SDKs")
    causes = [f"{code(kind)}: {' '.join(TYPES[kind])}" for kind in ERROR_RESPONSES]
    return f"{table(heads, rows)}\n\nThe causes, and what to do:\n\n{items(causes)}"


def codes() -> str:
    """Return a table of all codes."""
    rows = [
        (code(name), str(status), code(ERROR_RESPONSES[kind].type), CODES[name])
        for name, status, kind in sorted(set(raised()))
    ]
    return table(("`code`", "status", "`type`", "cause"), rows)


def raised() -> Iterator[tuple[str, int, ErrorType]]:
    """Yield every code that the frontend's source gives to an error, with its status and type."""
    for path in (path for package in HTTP_PACKAGES for path in package.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if call.func.id in _PASSES_ON:
                yield from ((name, *_PASSES_ON[call.func.id]) for name in _values(call.args[1]))
            elif call.func.id == "ApiError" and "code" in given and isinstance(call.args[0], ast.Attribute):
                kind = ErrorType[call.args[0].attr]
                status = ast.literal_eval(given["status"]) if "status" in given else ERROR_RESPONSES[kind].status
                yield from ((name, status, kind) for name in _values(given["code"]))


def _values(expression: ast.expr) -> Iterator[str]:
    match expression:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _values(body)
            yield from _values(orelse)
        case ast.Name(id="reason"):  # of a refused admission
            yield from (reason for reason in _REJECTIONS if reason not in ("full", "full_model"))
