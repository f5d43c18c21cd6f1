"""Stop admissions before the memory of Redis is full, so that what runs has room to come to its end.

At `maxmemory` Redis itself refuses admissions, and nothing else. Below it, at the mark, the frontends do. Where a
server does not tell its memory (its access rules forbid INFO), its own refusal is the only mark.
"""

from __future__ import annotations

import asyncio
import time

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.errors import StoreError, StoreFull
from lifecycle.store.redis import Commands
from lifecycle.store.server_info import memory_room, parse_info
from lifecycle.store.transitions import Store

_SHARE = 0.9  # of maxmemory
_FRESH_SECS = 1.0
_NEAR_SECS = 0.1  # how old a reading may be when what was admitted since takes a part of the room
_NEAR = 0.25
_UNKNOWN_SECS = 10.0
_SERVERS = 1000  # whose readings are kept at most


class _Room:
    """Know what one server has left below the mark, in bytes, less what was admitted here since that was read."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._left = float("inf")
        self._read_at = float("-inf")
        self._fresh_secs = 0.0

    @property
    def is_old(self) -> bool:
        """Return whether the server is to be asked again."""
        return time.monotonic() - self._read_at >= self._fresh_secs

    async def refresh(self, server: Commands) -> None:
        """Ask the server again, once for all calls at the same time."""
        async with self._asking:  # whoever comes meanwhile waits for the same answer
            if not self.is_old:
                return
            now, left, fresh_secs = time.monotonic(), float("inf"), _UNKNOWN_SECS
            try:
                info = parse_info((await server.execute("INFO", "memory")).decode(errors="replace"))
                left, fresh_secs = memory_room(info, _SHARE), _FRESH_SECS
            except (StoreError, RedisError):
                tasks.check_cancelled()
            self._left, self._read_at, self._fresh_secs = left, now, fresh_secs

    def take(self, size: int) -> bool:
        """Take so many bytes of the room, and return whether it has them."""
        if size > self._left:
            self._fresh_secs = _NEAR_SECS
            return False
        if size > self._left * _NEAR:
            self._fresh_secs = _NEAR_SECS
        self._left -= size
        return True


class MemoryMark:
    """Know approximately how much memory each server of Redis has left for new requests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rooms: dict[Commands, _Room] = {}

    async def check(self, rid: str, body_bytes: int) -> None:
        """Raise StoreFull when the server of this request has no room for it below the mark."""
        server = await self._store.commands.node_of(self._store.keys.prefix_of(rid))
        room = self._rooms.get(server)
        if room is None:
            if len(self._rooms) >= _SERVERS:
                self._rooms.clear()
            room = self._rooms[server] = _Room()
        if room.is_old:
            await room.refresh(server)
        if not room.take(body_bytes):
            raise StoreFull(f"more than {_SHARE:.0%} of maxmemory would be used with a body of {body_bytes:,} bytes")
