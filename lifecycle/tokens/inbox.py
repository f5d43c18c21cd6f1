"""The frontend's side of the push: one subscription a shard, frames unpacked and handed on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from lifecycle.store.listener import Listener, Source

log = logging.getLogger(__name__)

Dispatch = Callable[[str, str, Any], None]
"""Called with request id, entry id and payload: a list of token texts, or an event object with a `type`."""


class Inbox(Listener):
    """Listens on one shard's channel of one frontend, for ever. A missed frame is no loss: readers see the gap, or are
    told by `on_gap`, at each connect, to look for one.
    """

    def __init__(self, source: Source, channel: str, dispatch: Dispatch, on_gap: Callable[[], None]) -> None:
        """`source`: the server that holds the channel's slot."""
        super().__init__("an inbox", source)
        self._channel = channel
        self._dispatch = dispatch
        self._on_gap = on_gap

    def _greeting(self) -> Iterable[tuple[str, ...]]:
        # Sharded: in a Cluster it is served, like all else about a request, by the node of its slot alone.
        yield "SSUBSCRIBE", self._channel

    def _take(self, reply: Any) -> None:
        match reply:
            case [b"smessage", _, frame]:
                self._unpack(frame)
            case [b"ssubscribe", *_]:
                self._on_gap()
            case [b"sunsubscribe", *_]:
                raise ConnectionError("the slot has moved to another node")

    def _unpack(self, frame: bytes) -> None:
        try:
            items: list[tuple[str, str, Any]] = orjson.loads(frame)
            for item in items:
                try:
                    self._dispatch(*item)
                except Exception:  # one request's trouble must not stop the others
                    log.exception("an inbox item could not be handled: %.200r", item[:2])
        except (TypeError, ValueError):
            log.error("an inbox frame could not be read; its readers will fill the gap")
