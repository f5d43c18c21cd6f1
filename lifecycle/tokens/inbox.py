"""Receive the frames that Redis pushes to a frontend: one subscription for each shard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from lifecycle.store.listener import ConnectionFactory, Listener
from lifecycle.tokens.encoded_events import EncodedEvents

log = logging.getLogger(__name__)

_NOT_DECODED = "an inbox frame could not be decoded; its readers will read the stream instead"

Dispatch = Callable[..., None]
"""Called with request id, entry id and payload: token events, or an event object with a `type`.

The nonce of the attempt's start follows token events.
"""


class Inbox(Listener):
    """Listen on one frontend's channel of one shard until cancelled.

    A frame that is missed loses nothing: readers detect the gap by the numbers, and `on_gap` is called at each connect
    so that readers and monitors check their requests' records.
    """

    def __init__(
        self, factory: ConnectionFactory, channel: str, dispatch: Dispatch, on_gap: Callable[[], None]
    ) -> None:
        """`factory` connects to the server that holds the channel's slot."""
        super().__init__("an inbox", factory)
        self._channel = channel
        self._dispatch = dispatch
        self._on_gap = on_gap
        self._head: _Head | None = None  # its tokens are the next message

    def follow(self, channel: str) -> None:
        """Listen on another channel of the same shard from now on."""
        before, self._channel = self._channel, channel
        self._send("SUNSUBSCRIBE", before)
        self._send("SSUBSCRIBE", channel)

    def _greeting(self) -> Iterable[tuple[str, ...]]:
        # Sharded pub/sub: in Redis Cluster the node that holds the requests' slot serves the channel too.
        yield "SSUBSCRIBE", self._channel

    def _take(self, replies: list[Any]) -> None:
        frames: list[bytes | list[Any]] = []
        for reply in replies:
            match reply:
                case [b"smessage", _, message]:
                    if self._head is not None or message.startswith(b"{"):
                        frames += self._put_together(message)
                    else:
                        frames.append(message)
                case [b"ssubscribe", *_]:
                    self._head = None
                    self._on_gap()
                case [b"sunsubscribe", name, *_] if name == self._channel.encode():
                    raise ConnectionError("the slot has moved to another node")
        for item in _items(frames):
            try:
                self._dispatch(*item)
            except Exception:  # a malformed item of one request must not stop the others
                log.exception(
                    "an inbox item could not be handled: %.200r", item[:2] if type(item) is list else "not a list"
                )

    def _put_together(self, message: bytes) -> list[bytes | list[Any]]:
        """Return what frames are complete with this message: a head, its tokens, or what comes in place of them."""
        head, self._head = self._head, None
        if head is not None:
            if len(message) == head.size:
                return [head.with_tokens(message)]
            return [head.others, *self._put_together(message)]
        if not message.startswith(b"{"):
            return [message]
        try:
            self._head = _Head.of(orjson.loads(message))
        except (LookupError, TypeError, ValueError):
            log.error(_NOT_DECODED)
        return []


class _Head(NamedTuple):
    """Hold the items of a frame but for the tokens of the first one, which are the next message, of `size` bytes."""

    size: int
    rid: str
    entry_id: str
    number: int  # of the tokens
    nonce: str
    others: list[Any]

    @classmethod
    def of(cls, frame: Any) -> _Head:
        """Raises LookupError, TypeError or ValueError for what is no such frame."""
        (rid, entry_id, number, nonce), *others = frame["items"]
        return cls(int(frame["bytes"]), rid, entry_id, int(number), nonce, others)

    def with_tokens(self, tokens: bytes) -> list[Any]:
        """Return the items with these tokens."""
        return [[self.rid, self.entry_id, EncodedEvents(tokens, self.number), self.nonce], *self.others]


def _items(frames: Sequence[bytes | list[Any]]) -> list[Any]:
    """Return the items of frames that arrived together, in order; one request's consecutive tokens become one item.

    Merging them means fewer writes to clients, so that a frontend that has fallen behind catches up.
    """
    items: list[Any] = []
    last: dict[str, list[Any]] = {}  # the last item of each request
    for frame in frames:
        try:
            unpacked: Any = orjson.loads(frame) if isinstance(frame, bytes) else frame
            if type(unpacked[0]) is not list:
                raise ValueError("no item")  # such as tokens whose head was not seen
            if len(frames) == 1:
                return list(unpacked)
            for item in unpacked:
                rid, payload = item[0], item[2]
                before = last.get(rid)
                if before is not None and type(payload) is type(before[2]) is list and _follows(item, before):
                    before[1], before[2] = item[1], before[2] + payload
                else:
                    last[rid] = item
                    items.append(item)
        except (TypeError, ValueError, LookupError):
            log.error(_NOT_DECODED)
    return items


def _follows(item: list[Any], before: list[Any]) -> bool:
    """Return whether these tokens are the very next ones of the same start of an attempt.

    An entry id has the number of its last token.
    """
    attempt, _, last = item[1].partition("-")
    attempt_before, _, last_before = before[1].partition("-")
    return attempt == attempt_before and item[3:] == before[3:] and int(last) - len(item[2]) == int(last_before)
