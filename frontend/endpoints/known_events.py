"""Read again the events that a client has, which resumes behind them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from redis.exceptions import RedisError

from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.tokens.history import read_items
from lifecycle.tokens.items import Tokens

log = logging.getLogger(__name__)


async def known_events(store: Store, rid: str, last: TokenId) -> AsyncIterator[Tokens]:
    """Yield the events of a request up to `last`, in order. Raises StoreUnavailable.

    A stream that cannot be read counts as empty, since the reader of the events behind `last` reports it.
    """
    try:
        async for item in read_items(store, rid, up_to=last.number):
            if isinstance(item, Tokens):
                yield item
    except (RedisError, ValueError):
        log.exception("the events of %s up to %s cannot be read", rid, last)
