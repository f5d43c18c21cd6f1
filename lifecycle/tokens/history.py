"""Reading the token stream itself: what resumes, late readers and gaps are served from."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from lifecycle.ids import TokenId
from lifecycle.store.scripts import Store

PAGE_ENTRIES = 256
CLOSED_ATTEMPT = 18446744073709551615


class End(NamedTuple):
    """The token stream is closed; `last` is the number of its last token."""

    status: str
    error_type: str
    message: str
    finish_reason: str
    last: int
    input_tokens: int | None = None

    @classmethod
    def from_event(cls, event: dict[str, object]) -> End:
        return cls(
            str(event["status"]),
            str(event["error_type"]),
            str(event["message"]),
            str(event["finish_reason"]),
            int(str(event["last"])),
            int(str(event["input_tokens"])) if event.get("input_tokens") else None,
        )


class Tokens(NamedTuple):
    """Consecutive tokens of one attempt, numbered `first`, `first + 1`, …"""

    attempt: int
    first: int
    texts: list[str]

    @property
    def last(self) -> int:
        return self.first + len(self.texts) - 1


class Opened(NamedTuple):
    """An attempt begins, behind `base` tokens of earlier ones."""

    attempt: int
    base: int


class HistoryPage(NamedTuple):
    items: list[Tokens | End | Opened]
    exhausted: bool  # nothing further is in the stream now
    next_id: str  # where to go on


async def read_history(store: Store, rid: str, after: str, retry_for_secs: float = 0.0) -> HistoryPage:
    """One page of entries whose id is greater than `after` (an entry id; "0-0" for all)."""
    key = store.keys.prefix_of(rid) + "tokens:" + rid
    entries = await store.command("XRANGE", key, f"({after}", "+", "COUNT", PAGE_ENTRIES, retry_for_secs=retry_for_secs)
    items: list[Tokens | End | Opened] = []
    for entry_id, flat in entries:
        after = entry_id.decode()
        values = dict(zip(flat[::2], flat[1::2], strict=True))
        if b"t" in values:
            token_id = TokenId(*map(int, after.split("-")))
            texts = orjson.loads(values[b"t"])
            items.append(Tokens(token_id.attempt, token_id.number - len(texts) + 1, texts))
        elif b"e" in values:
            items.append(End.from_event(orjson.loads(values[b"e"])))
        elif b"s" in values:
            items.append(Opened(*map(int, after.split("-"))))
    return HistoryPage(items, len(entries) < PAGE_ENTRIES, after)


async def read_emitted(store: Store, rid: str, base: int, retry_for_secs: float) -> list[str] | None:
    """The texts of all tokens before an attempt that begins behind `base`. None when they are not exactly so many."""
    texts: list[str] = []
    after = "0-0"
    while True:
        page = await read_history(store, rid, after, retry_for_secs)
        for item in page.items:
            if isinstance(item, Tokens):
                if item.first != len(texts) + 1:
                    return None
                texts += item.texts
        if page.exhausted:
            return texts if len(texts) == base else None
        after = page.next_id
