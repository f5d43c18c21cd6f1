"""Read and check the body, the JSON fields and the query parameters of an HTTP call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request

from frontend.transport.deps import get_caller, get_client_shares
from frontend.transport.headers import headers_of
from lifecycle.fastapi.caller import Caller
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import START, TokenId, is_endpoint, is_request_id
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, ErrorType, RequestRecord

LABEL_CHARS = 512
_OBJECT_BYTES = 64 * 1024
REASON_CHARS = 1024


def invalid_parameter(message: str, param: str) -> ApiError:
    """Return the error 400 for a header, field or query parameter that is named `param`."""
    return ApiError(ErrorType.VALIDATION, message, param=param)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read the whole body.

    Raises ApiError: 413 above `limit_bytes`, 429 at the client's share of unfinished bodies. Raises ClientDisconnect
    when the client disconnects before that, or when the connection has answered 408 because the body was late.
    """
    declared = headers_of(request.scope).get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    complete = ClientConnection.of(request.scope).body()
    if complete is not None:
        if len(complete) > limit_bytes:
            raise _too_large(limit_bytes)
        return complete
    parts, size = [], 0
    with get_client_shares(request).unfinished_body(get_caller(request)) as body:
        async for part in request.stream():
            size += len(part)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            body.add(len(part))
            parts.append(part)
    return b"".join(parts)


def _too_large(limit_bytes: int) -> ApiError:
    message = f"The request body is larger than {limit_bytes} bytes; send a smaller one"
    return ApiError(ErrorType.VALIDATION, message, status=413, code="body_too_large")


async def read_json_object(request: Request) -> dict[str, Any]:
    """Read a JSON object of at most 64 KiB; an empty body stands for `{}`. Raises ApiError: 400 or 413."""
    body = await read_body(request, _OBJECT_BYTES)
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise invalid_parameter("The body is not valid JSON", "body") from None
    if not isinstance(value, dict):
        raise invalid_parameter("The body must be a JSON object", "body")
    return value


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """Return the string in this field, '' when it is missing or null. Raises ApiError (400)."""
    value = fields.get(name)
    if not isinstance(value, str | None) or len(value or "") > LABEL_CHARS:
        raise invalid_parameter(f"{name} must be a string of at most {LABEL_CHARS} characters", name)
    return value or ""


def one_of(value: str, name: str, allowed: Sequence[str]) -> str:
    """Return the value if it is empty or allowed. Raises ApiError (400)."""
    if value and value not in allowed:
        raise invalid_parameter(f"{name} must be one of {', '.join(allowed)}", name)
    return value


def endpoint_name(value: str) -> str:
    """Return the value if it is empty or may be the name of an endpoint. Raises ApiError (400)."""
    if value and not is_endpoint(value):
        raise invalid_parameter("endpoint must be 1 to 64 characters of a-z 0-9 _", "endpoint")
    return value


def cancel_mode(fields: Mapping[str, Any]) -> CancelMode:
    """Return the field `mode`; `kill` is the default. Raises ApiError (400)."""
    value = fields.get("mode")
    return CancelMode(one_of("" if value is None else str(value), "mode", tuple(CancelMode)) or CancelMode.KILL)


def reason(fields: Mapping[str, Any]) -> str:
    """Return the field `reason`, or a default text. Raises ApiError (400)."""
    value = fields.get("reason")
    if not isinstance(value, str | None) or len(value or "") > REASON_CHARS:
        raise invalid_parameter(f"reason must be a string of at most {REASON_CHARS} characters", "reason")
    return value or "Cancelled by request"


async def read_page_start(store: Store, rid: str, caller: Caller) -> RequestRecord | None:
    """Return the record behind which the next page of a listing starts; None, for the first page, if `rid` is empty.

    Raises ApiError (400) when the caller knows no such request, StoreError when Redis is unavailable.
    """
    if not rid:
        return None
    record = await store.read(rid) if is_request_id(rid) else None
    if record is None or not caller.may_see(record.owner):
        message = f"after: the request {rid[:128]!r} is unknown or has expired; start again without after"
        raise invalid_parameter(message, "after")
    return record


def token_id(text: str) -> TokenId:
    """Return the position at which a stream is resumed; its start for an empty text. Raises ApiError (400)."""
    position = TokenId.parse(text) if text else START
    if position is None:
        message = "Last-Event-ID (or ?after=) must be the id of a token: <attempt>-<number>"
        raise invalid_parameter(message, "Last-Event-ID")
    return position
