"""Read a response from its events in Redis: a part of them for a client that resumes, or its state at this moment."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from frontend.endpoints.endpoint import Answer
from frontend.endpoints.responses.error import response_error
from frontend.endpoints.responses.fold import ResponseFold
from lifecycle.formats.response_object import ENDINGS, new_response
from lifecycle.formats.responses_usage import to_responses_usage
from lifecycle.ids import START, TokenId
from lifecycle.store.transitions import Store
from lifecycle.tokens.history import read_history, read_items
from lifecycle.tokens.items import End, Tokens
from lifecycle.types import RequestRecord, Status, Storage

_RETRY_SECS = 1.0


class ReadEvents(NamedTuple):
    """Hold the fold of the events that were read, the id of the last of them, and the end if it was reached."""

    fold: ResponseFold
    last: TokenId
    end: End | None


async def read_fold(store: Store, answer: Answer, up_to: int | None = None) -> ReadEvents:
    """Fold the events up to the one with the number `up_to`; without it all that are there now.

    Raises StoreUnavailable; RedisError or ValueError when the key does not hold a token stream.
    """
    fold = ResponseFold(new_response(answer.id, answer.created_at, {"model": answer.model}, "in_progress"))
    last, end = START, None
    async for item in read_items(store, answer.id, up_to, _RETRY_SECS):
        if isinstance(item, End):
            end = item
        elif isinstance(item, Tokens) and item.events:
            fold.add(item.events)
            last = TokenId(item.attempt, item.last)
    return ReadEvents(fold, last, end)


async def _read_ending(store: Store, record: RequestRecord) -> ReadEvents | None:
    """Read only the event that ends a completed response, because it has all of it; None when there is none.

    Clients poll for it, and the whole stream may be long.
    """
    if record.status is not Status.COMPLETED or record.stream_length == 0:
        return None
    page = await read_history(store, record.id, f"{record.attempt}-{record.stream_length - 1}", _RETRY_SECS)
    match page.items:
        case [Tokens(events=[*_, {"type": str(kind)} as ending]) as tokens, End() as end] if kind in ENDINGS:
            fold = ResponseFold(new_response(record.id, record.created_at, {}, "in_progress"))
            fold.add([ending])
            return ReadEvents(fold, TokenId(tokens.attempt, tokens.last), end)
    return None


async def read_response(store: Store, rid: str) -> tuple[RequestRecord, dict[str, Any]] | None:
    """Return the record of a response and the response object as it is now; None when its content is gone.

    What is not stored is gone at its end: the events that are left for a while are for its readers of that moment.

    Raises StoreUnavailable; RedisError or ValueError when its events cannot be read.
    """
    record = await store.read(rid, retry_for_secs=_RETRY_SECS)
    if record is None:
        return None
    answer = Answer(rid, record.model, record.created_at)
    read = await _read_ending(store, record) or await read_fold(store, answer)
    record = await store.read(rid, retry_for_secs=_RETRY_SECS)
    if record is not None and record.status.terminal and read.end is None:  # it has ended between the two
        read = await read_fold(store, answer)
    if record is None or record.storage == Storage.DELETED:
        return None
    if record.status.terminal and (read.end is None or record.storage == Storage.TRANSIENT):
        return None
    if read.last == START:  # no event has told yet what the client asked for
        content = await store.read_content(rid, retry_for_secs=_RETRY_SECS)
        if content is not None and content.body is not None:
            given = orjson.loads(content.body)
            read = read._replace(fold=ResponseFold(new_response(rid, record.created_at, given, "queued")))
    return record, _object(record, read)


def _object(record: RequestRecord, read: ReadEvents) -> dict[str, Any]:
    """Return the response object. The record decides: a killed request has its end before the confirmation."""
    fold, end = read.fold, read.end
    if not record.status.terminal or end is None:
        return fold.response("queued" if record.status is Status.QUEUED else "in_progress")
    if record.status is Status.COMPLETED:
        return fold.completed(end)
    counted = record.usage and {"completion_tokens": record.output_tokens, **record.usage}
    usage = to_responses_usage(counted)
    if record.status is Status.CANCELLED:
        return fold.response("cancelled", usage=usage)
    error = response_error(record.error_type, record.error_message, record.error_detail)
    return fold.response("failed", usage=usage, error=error)
