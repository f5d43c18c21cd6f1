"""Continue a stored response: its input and its output become the context of the call that names it."""

from __future__ import annotations

from typing import Any

import orjson

from frontend.endpoints.endpoint import Answer, Call, MaySee
from frontend.endpoints.responses.error import check_size
from frontend.endpoints.responses.history import read_fold
from frontend.endpoints.responses.input_items import items_of
from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import is_request_id
from lifecycle.store.results import Content
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import NATIVE_ONLY
from lifecycle.translation.responses_support import untranslatable
from lifecycle.types import Endpoint, ErrorType, Status, Storage

PARAM = "previous_response_id"
_RETRY_SECS = 0.3


async def with_context(call: Call, store: Store, may_see: MaySee, limit_bytes: int) -> Call:
    """Return the call with the items of the response that it continues put before its own input.

    These are that response's input, which already has what it continued itself, and its output, but not its
    `instructions`. A call that continues nothing is returned as it is. When chat completions have no form for the
    items, the call needs an engine that serves responses itself.

    Raises ApiError: 400 when the response does not exist, was not stored, has not ended or did not complete; 413 when
    the body becomes larger than `limit_bytes`. Raises StoreUnavailable.
    """
    previous_id = call.body.get(PARAM)
    if not isinstance(previous_id, str):
        return call
    content = await store.read_content(previous_id, retry_for_secs=_RETRY_SECS) if is_request_id(previous_id) else None
    if content is None or content.record.endpoint != Endpoint.RESPONSES or not may_see(content.record.owner):
        raise _not_found(previous_id, "does not exist; it may have expired")
    context = await _read_items(store, content)
    body = call.body | {"input": context + items_of(call.body.get("input"))}
    continued = f"the response {previous_id!r} that it continues"
    advice = "begin a new conversation, or send the part of it that is needed as input"
    check_size(body, limit_bytes, continued, advice, PARAM)
    gated = (*call.gated, NATIVE_ONLY + PARAM) if untranslatable({"input": context}) else call.gated
    return call._replace(body=body, gated=gated)


async def _read_items(store: Store, content: Content) -> list[dict[str, Any]]:
    """Return the items of a response's input and output. Raises ApiError, 400, when it cannot be continued."""
    record = content.record
    if record.storage == Storage.DELETED:
        raise _not_found(record.id, "was deleted, or removed to make room for newer ones")
    if record.storage == Storage.TRANSIENT:
        raise _not_found(record.id, "is not stored: it was created with store=false")
    if not record.status.terminal:
        raise _not_found(record.id, "has not ended; wait for its end before you continue it")
    if record.status is not Status.COMPLETED:
        raise _not_found(record.id, f"cannot be continued, because it ended as {record.status}")
    read = await read_fold(store, Answer(record.id, record.model, record.created_at))
    # The content may have been deleted after the record was read, and a part of it must not be taken for the whole.
    if content.body is None or read.end is None or read.last.number != record.stream_length:
        raise _not_found(record.id, "has just expired or was deleted")
    output: list[dict[str, Any]] = read.fold.completed(read.end)["output"]
    return items_of(orjson.loads(content.body).get("input")) + output


def _not_found(response_id: str, why: str) -> ApiError:
    return ApiError(
        ErrorType.VALIDATION,
        f"The previous response {response_id!r} {why}",
        code="previous_response_not_found",
        param=PARAM,
    )
