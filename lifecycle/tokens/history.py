"""Read the token stream in Redis: for clients that resume or arrive late, and to fill gaps."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import orjson

from lifecycle.ids import START, TokenId
from lifecycle.store.transitions import Store
from lifecycle.tokens.items import End, Opened, Tokens
from lifecycle.types import Event

PAGE_ENTRIES = 256
PAGE_BYTES = 128 * 1024
"""The bytes of a page's JSON after which the page ends. Decoded, small events take about ten times as much memory."""


class HistoryPage(NamedTuple):
    """Hold one page of a token stream, in the stream's order."""

    items: list[Tokens | End | Opened]
    exhausted: bool  # the stream has no further entries at the moment
    next_id: str  # the entry id behind which the next page begins
    opened: Opened | None  # the attempt in which the page begins, as the stream has it; None when it has none


async def read_history(
    store: Store, rid: str, after: str, retry_for_secs: float = 0.0, page_bytes: int = PAGE_BYTES
) -> HistoryPage:
    """Read one page: the entries with ids greater than `after`, an entry id ("0-0" is before the first).

    It has at most PAGE_ENTRIES entries and ends with the one that reaches `page_bytes`, so one entry may exceed that.
    Raises StoreUnavailable; RedisError or ValueError when the key does not hold a token stream.
    """
    prefix = store.keys.prefix_of(rid)
    exhausted, opening, *entries = await store.run(
        "history", prefix, rid, after, PAGE_ENTRIES, page_bytes, retry_for_secs=retry_for_secs
    )
    items: list[Tokens | End | Opened] = []
    opened = _opened(opening[0].decode(), _fields(opening[1])) if opening else None
    nonce = opened.nonce if opened else ""
    for entry_id, flat in entries:
        after = entry_id.decode()
        values = _fields(flat)
        if b"t" in values:
            token_id = TokenId(*map(int, after.split("-")))
            events = orjson.loads(values[b"t"])
            items.append(Tokens(token_id.attempt, token_id.number - len(events) + 1, events, nonce))
        elif b"e" in values:
            items.append(End.from_event(orjson.loads(values[b"e"])))
        elif b"s" in values:
            items.append(begun := _opened(after, values))
            nonce = begun.nonce
    return HistoryPage(items, exhausted == b"1", after, opened)


def _fields(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _opened(entry_id: str, values: dict[bytes, bytes]) -> Opened:
    attempt, base = map(int, entry_id.split("-"))
    return Opened(attempt, base, values.get(b"n", b"").decode())


async def read_items(
    store: Store, rid: str, up_to: int | None = None, retry_for_secs: float = 0.0
) -> AsyncGenerator[Tokens | End | Opened]:
    """Yield the items that are there now, in order: up to the token with the number `up_to`, or without it all.

    Raises StoreUnavailable; RedisError or ValueError when the key does not hold a token stream.
    """
    after = str(START)
    while up_to is None or up_to > 0:
        page = await read_history(store, rid, after, retry_for_secs)
        for item in page.items:
            if up_to is not None and isinstance(item, Tokens) and item.last >= up_to:
                yield item._replace(events=item.events[: max(0, up_to + 1 - item.first)])
                return
            yield item
        if page.exhausted:
            return
        after = page.next_id


async def read_emitted(store: Store, rid: str, base: int, retry_for_secs: float) -> list[Event] | None:
    """Return the `base` events that earlier attempts have left, for an engine that resumes.

    Returns None when the stream does not hold exactly that many. Raises StoreUnavailable.
    """
    events: list[Event] = []
    async with aclosing(read_items(store, rid, retry_for_secs=retry_for_secs)) as items:
        async for item in items:
            if isinstance(item, Tokens):
                if item.first != len(events) + 1:
                    return None
                events += item.events
    return events if len(events) == base else None
