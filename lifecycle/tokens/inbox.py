"""The frontend's side of the push: one blocking read a shard, frames unpacked and handed on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
from redis.exceptions import RedisError

from lifecycle import tasks
from lifecycle.errors import StoreUnavailable
from lifecycle.store.redis import BLOCK_MS, Commands
from lifecycle.tokens.pace import Pace

log = logging.getLogger(__name__)

_FRAMES = 256  # in one read
_BEHIND_READS = 4  # full ones in a row, after which Redis may have trimmed frames that were not read
_READ_DISTANCE_SECS = 0.001
_PAYS_AT = 2  # frames in that time: several workers push
_LONGEST_PAUSE_SECS = 1.0

Dispatch = Callable[[str, str, Any], None]
"""Called with request id, entry id and payload: a list of token texts, or an event object with a `type`."""


class Inbox:
    """Reads one shard's inbox of one frontend, for ever. A missed frame is no loss: readers see the gap, or are told
    by `on_behind` to look for one.
    """

    def __init__(self, blocking: Commands, key: str, dispatch: Dispatch, on_behind: Callable[[], None]) -> None:
        self._blocking = blocking
        self._key = key
        self._dispatch = dispatch
        self._on_behind = on_behind
        self._full_reads = 0
        self._last: str | bytes = "0-0"
        self._pace = Pace(distance_secs=_READ_DISTANCE_SECS, pays_at=_PAYS_AT)

    def rewind(self) -> None:
        """Redis has lost its data: ids may start again from anywhere."""
        self._last = "0-0"

    async def run(self) -> None:
        pause = 0.0
        while True:
            tasks.check_cancelled()
            wait_secs = self._pace.wait_secs()
            if wait_secs:
                await asyncio.sleep(wait_secs)
            try:
                reply: Any = await self._blocking.execute(
                    "XREAD", "COUNT", _FRAMES, "BLOCK", BLOCK_MS, "STREAMS", self._key, self._last
                )
            except (RedisError, StoreUnavailable) as failure:
                tasks.check_cancelled()
                pause = min(pause * 2 + 0.02, _LONGEST_PAUSE_SECS)
                log.debug("inbox read failed, again in %.2f s: %s", pause, failure)
                await asyncio.sleep(pause)
                continue
            pause = 0.0
            frames = 0
            for _, entries in reply or ():
                frames = len(entries)
                self._pace.step(frames)
                for entry_id, values in entries:
                    self._last = entry_id
                    self._unpack(values)
            self._keep_up(frames)

    def _keep_up(self, frames: int) -> None:
        if frames == _FRAMES:
            self._full_reads += 1
            return
        if self._full_reads >= _BEHIND_READS:
            self._on_behind()
        self._full_reads = 0

    def _unpack(self, values: list[bytes]) -> None:
        try:
            _, frame = values
            items: list[tuple[str, str, Any]] = orjson.loads(frame)
            for item in items:
                try:
                    self._dispatch(*item)
                except Exception:  # one request's trouble must not stop the others
                    log.exception("an inbox item could not be handled: %.200r", item[:2])
        except (TypeError, ValueError):
            log.error("an inbox frame could not be read; its readers will fill the gap")
