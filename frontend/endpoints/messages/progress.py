"""Know how far an answer is, so that its end can be made where the engine has sent none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from frontend.endpoints.completions.fold import usage_of
from frontend.endpoints.known_events import known_events
from lifecycle.formats.message_object import new_message, stop_reason_of
from lifecycle.formats.messages_usage import from_chat
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.tokens.items import End
from lifecycle.types import Event


class MessageProgress:
    """Hold what the events so far say about the end, which each event may be noted for more than once.

    `stop` is the `message_stop` event with its id, once it has come. A text is the whole answer of a call that counts
    tokens.
    """

    __slots__ = ("_answered", "_begun", "_ended", "_open", "stop")

    def __init__(self) -> None:
        self._answered = False  # a text has come
        self._begun = False  # message_start has come
        self._ended = False  # message_delta has come
        self._open: dict[int, None] = {}  # the indexes of the blocks that are open, in order
        self.stop: tuple[TokenId, dict[str, Any]] | None = None

    def note(self, attempt: int, number: int, event: Event) -> None:
        """Take note of one event."""
        if isinstance(event, str):
            self._answered = True
            return
        kind = event.get("type")
        if kind == "content_block_delta":
            return  # the most frequent one
        if kind == "content_block_start":
            self._open[_index_of(event)] = None
        elif kind == "content_block_stop":
            self._open.pop(_index_of(event), None)
        elif kind == "message_start":
            self._begun = True
        elif kind == "message_delta":
            self._ended = True
        elif kind == "message_stop":
            self.stop = TokenId(attempt, number), event

    def missing_end(self, request_id: str, model: str, end: End) -> Iterator[dict[str, Any]]:
        """Yield the events that complete an answer whose engine was stopped, `message_stop` included."""
        if self._answered:
            return
        usage = from_chat(usage_of(end), end.last)
        if not self._begun:
            yield {"type": "message_start", "message": new_message(request_id, model, usage)}
        for index in self._open:
            yield {"type": "content_block_stop", "index": index}
        if not self._ended:
            delta = {"stop_reason": stop_reason_of(end.finish_reason), "stop_sequence": None}
            yield {"type": "message_delta", "delta": delta, "usage": usage}
        yield {"type": "message_stop"}


def _index_of(event: dict[str, Any]) -> int:
    index = event.get("index")
    return index if type(index) is int else 0


async def read_progress(store: Store, rid: str, after: TokenId) -> MessageProgress:
    """Return the progress at the event `after`. Raises StoreUnavailable."""
    progress = MessageProgress()
    async for tokens in known_events(store, rid, after):
        for number, event in enumerate(tokens.events, tokens.first):
            progress.note(tokens.attempt, number, event)
    return progress
