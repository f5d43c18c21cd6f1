"""Read the events of a response that are in Redis into a fold."""

from __future__ import annotations

from typing import NamedTuple

from frontend.endpoints.endpoint import Answer
from frontend.endpoints.responses.fold import ResponseFold
from lifecycle.formats.response_object import new_response
from lifecycle.ids import START, TokenId
from lifecycle.store.transitions import Store
from lifecycle.tokens.history import read_history
from lifecycle.tokens.items import End, Tokens

_RETRY_SECS = 1.0


class ReadResponse(NamedTuple):
    """Hold the fold of the events that were read, the id of the last of them, and the end if it was reached."""

    fold: ResponseFold
    last: TokenId
    end: End | None


async def read_fold(store: Store, answer: Answer, up_to: int | None = None) -> ReadResponse:
    """Fold the events up to the one with the number `up_to`; without it all that are there now.

    Raises StoreUnavailable; RedisError or ValueError when the key does not hold a token stream.
    """
    fold = ResponseFold(new_response(answer.id, answer.created_at, {"model": answer.model}, "in_progress"))
    last, end, after = START, None, "0-0"
    while up_to is None or last.number < up_to:
        page = await read_history(store, answer.id, after, _RETRY_SECS)
        for item in page.items:
            if isinstance(item, End):
                end = item
            elif isinstance(item, Tokens):
                count = len(item.events) if up_to is None else max(0, up_to - item.first + 1)
                if count > 0:
                    fold.add(item.events[:count])
                    last = TokenId(item.attempt, item.first + min(count, len(item.events)) - 1)
        if page.exhausted:
            break
        after = page.next_id
    return ReadResponse(fold, last, end)
