"""How a request or a call can fail: the closed list of types, and the codes of calls that never became a request."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from frontend.routes.completions import _REJECTIONS
from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import ErrorType
from tests.reference.table import code, table

_PASSES_ON = {"_forbidden": (403, ErrorType.VALIDATION)}  # functions that take the code as their second argument
ROOT = Path(__file__).parents[2]
HTTP_PACKAGES = (ROOT / "frontend", ROOT / "lifecycle" / "fastapi")

# what happened; what to do about it
TYPES = {
    ErrorType.VALIDATION: ("the call is wrong", "mend what `param` names; repeating it changes nothing"),
    ErrorType.NOT_FOUND: ("no such model, request or path", "a request: its record has expired, or never was"),
    ErrorType.OVERLOAD: ("a limit of the caller's", "come back after `Retry-After`"),
    ErrorType.UNAVAILABLE: (
        "no worker, a full queue, a draining frontend, Redis away for too long",
        "repeat it after `Retry-After`; `lifecycle doctor`",
    ),
    ErrorType.NOT_IMPLEMENTED: ("a parameter that is understood and not supported", "leave `param` out"),
    ErrorType.CANCELLED: ("cancelled by id, or its client went away", "`cancel_reason` in the record says why"),
    ErrorType.RESPONSE_TIMEOUT: (
        "silence for `BACKEND_STREAM_TIMEOUT_SECS` (the worker's), or twice that (the frontend's)",
        "the engine hangs: the worker's log",
    ),
    ErrorType.QUEUE_TIMEOUT: ("not started within `QUEUE_TIMEOUT_SECS`", "more workers, or a longer limit"),
    ErrorType.FIRST_TOKEN_TIMEOUT: (
        "no token within `FIRST_TOKEN_TIMEOUT_SECS`",
        "a slow prefill, or a full engine: fewer at a time (`CONCURRENCY`)",
    ),
    ErrorType.DEADLINE: ("not ended within `DEADLINE_SECS`", "a longer limit, or a shorter answer (`max_tokens`)"),
    ErrorType.WORKER_LOST: (
        "its worker died or drained, and it could not be tried again",
        "repeat it; why the worker died is in its log, or the kernel's",
    ),
    ErrorType.FRONTEND_LOST: ("its frontend died, and nobody else read it", "repeat it; an `Idempotency-Key` helps"),
    ErrorType.STATE_LOST: ("Redis lost its data, or the tokens that were read", "repeat it; keep an append-only file"),
    ErrorType.SLOW_CONSUMER: (
        "the client took nothing for `SLOW_CONSUMER_SECS`",
        "read on behind the last token, if the request `continue`s or has another reader",
    ),
    ErrorType.INTERNAL: ("the engine raised, or a bug of ours", "the message has the engine's words; the worker's log"),
}
CODES = {
    "body_too_large": "the body is larger than `LIFECYCLE_MAX_BODY_BYTES`",
    "cross_origin": "a log-in's cookie counts only for calls from this frontend's own page",
    "contended": "other calls with this `Idempotency-Key` are being admitted; repeat it",
    "draining": "this frontend is leaving; another one will take the call",
    "idempotency_key_reused": "the `Idempotency-Key` was used with another body; take a new key",
    "inflight_limit": "the key's name has as many requests inflight as it may",
    "insufficient_permissions": "the call is for operators, and the key is a client's",
    "invalid_api_key": "no key, or an unknown one: `Authorization: Bearer KEY`",
    "lease_lost": "this frontend's lease expired; it comes back under a new id",
    "model_not_found": "no worker has been known to serve this model",
    "no_keys": "there are no keys here, and nothing to log in to",
    "no_worker": "the model is known, and no worker that serves it lives",
    "overloaded": "this frontend has as many streams or viewers as it may",
    "queue_full": "`LIFECYCLE_QUEUE_LIMIT` requests of this model wait",
    "redis_unavailable": "Redis does not answer, is loading, read-only or full",
    "request_id_in_use": "the `X-Request-Id` is known already; take a new one, or none",
    "request_not_found": "no such request, or its record has expired",
    "unsupported_parameter": "`param` is understood and not supported",
}


def types() -> str:
    rows = [
        (code(kind), str(shape.status), code(shape.type), *TYPES[kind], "yes" if ApiError(kind, "").retry else "no")
        for kind, shape in ERROR_RESPONSES.items()
    ]
    heads = ("`error_type`", "status, `code` of the frame", "`type`", "what happened", "what to do", "SDKs repeat it")
    return table(heads, rows)


def codes() -> str:
    rows = [
        (code(name), str(status), code(ERROR_RESPONSES[kind].type), CODES[name])
        for name, status, kind in sorted(set(raised()))
    ]
    return table(("`code`", "status", "`type`", "what happened"), rows)


def raised() -> Iterator[tuple[str, int, ErrorType]]:
    """Every code that the frontend's source gives to an error, with its status and type."""
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
            yield from (reason for reason in _REJECTIONS if reason != "full")
