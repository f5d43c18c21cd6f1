"""Follow a token stream straight in Redis, without a frontend and without counting as a reader."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from lifecycle.errors import StateLost
from lifecycle.ids import TokenId
from lifecycle.store.connect import open_blocking
from lifecycle.store.redis import BLOCK_MS, Commands
from lifecycle.store.transitions import Store
from lifecycle.tokens.history import read_history
from lifecycle.tokens.items import End, Opened, Tokens


async def follow(store: Store, rid: str, after: TokenId) -> AsyncGenerator[Tokens | End]:
    """Yield the tokens after `after` without gap or repeat; an End is the last item.

    Raises StateLost when Redis lost a part of the stream, and StoreUnavailable when Redis is out of reach.
    """
    number, cursor = after.number, str(after)
    over = False
    async with open_blocking(store.settings) as blocking:
        new_entries = _NewEntries(blocking, store.keys.prefix_of(rid) + "tokens:" + rid)
        while True:
            page = await read_history(store, rid, cursor)
            for item in page.items:
                if isinstance(item, End):
                    if item.last > number:
                        raise StateLost(f"{rid}: Redis lost a part of the token stream")
                    yield item
                    return
                if isinstance(item, Opened):
                    if item.base != number:  # tokens before this attempt are missing, or tokens already read are lost
                        raise StateLost(f"{rid}: Redis lost a part of the token stream")
                    continue
                if item.first > number + 1:
                    raise StateLost(f"{rid}: Redis lost a part of the token stream")
                if item.last > number:
                    yield item._replace(first=number + 1, events=item.events[number + 1 - item.first :])
                    number = item.last
            cursor = page.next_id
            if over and not page.items:
                raise StateLost(f"{rid}: Redis lost the end of the token stream")
            if page.exhausted and not await new_entries.wait(cursor):
                record = await store.read(rid)
                if record is None:
                    raise StateLost(f"{rid}: Redis lost the request, or it has expired")
                over = record.status.terminal


class _NewEntries:
    """Wait until the token stream has an entry after a position, without reading it."""

    def __init__(self, blocking: Commands, key: str) -> None:
        self._blocking = blocking
        self._key = key

    async def wait(self, cursor: str) -> bool:
        """Return False when no entry came within BLOCK_MS."""
        return bool(await self._blocking.execute("XREAD", "COUNT", 1, "BLOCK", BLOCK_MS, "STREAMS", self._key, cursor))
