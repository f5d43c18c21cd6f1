"""Read what the engine of one attempt yields: its events, their sizes, and what they say about the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import orjson

from lifecycle.encoding import Encodable
from lifecycle.execution.context import EngineContext
from lifecycle.execution.outcomes import CANCELLED, NO_ANSWER
from lifecycle.execution.reported_usage import reported_usage
from lifecycle.formats.event_format import format_of
from lifecycle.formats.origin import Origin
from lifecycle.store.results import Outcome, Start
from lifecycle.tokens.sizes import event_bytes, text_bytes
from lifecycle.tokens.writer import TokenSink
from lifecycle.types import Event

_MAX_ITEM_IDS = 256  # of an answer whose items are to be found by their ids


class EngineOutput:
    """Put the events of one attempt into its sink, in the format of the endpoint that the request came to."""

    def __init__(
        self,
        context: EngineContext,
        sink: TokenSink,
        start: Start,
        origin: Origin,
        is_translated: bool,
        limit_bytes: int,
        on_first_event: Callable[[float], None],
    ) -> None:
        """`limit_bytes` is of the whole answer, that of earlier attempts included.

        `on_first_event` is called with the first event that is no opening, and the seconds until then.
        """
        self._context = context
        self._sink = sink
        self._format = format_of(start.served, origin)
        self._is_translated = is_translated
        self._limit_bytes = limit_bytes
        self._on_first_event = on_first_event
        self._clock = asyncio.get_running_loop().time
        self.began_at = self.last_event_at = self._clock()
        self.has_begun = False  # an event has come that is no opening
        self._emitted_bytes = 0
        if emitted := origin.emitted:
            self._emitted_bytes = sum(map(event_bytes, emitted))
            if all(map(self._format.is_opening, emitted)):
                sink.openings = start.base
        self._item_ids: dict[str, None] = {}  # of the answer's items, in order
        self._without_content = 0  # events of this attempt that carry no part of the answer

    async def read(self, produced: AsyncIterator[Event]) -> bool:
        """Put the events into the sink until there are no more. Return False once the answer is too large.

        Raise what the engine raises, and TypeError for a value that is no event.
        """
        sink, clock, takes_text = self._sink, self._clock, self._format.takes_text
        total, limit = self._emitted_bytes, self._limit_bytes
        async for event in produced:
            self.last_event_at = clock()
            piece: Encodable = event
            if takes_text and isinstance(event, str):
                size = len(event) + 2 if event.isascii() else text_bytes(event)
                if not event:
                    self._without_content += 1
                if not self.has_begun:
                    self._begin()
            else:
                encoded = self._encode(event)
                if not encoded:
                    continue
                piece, size = orjson.Fragment(encoded), len(encoded)
            total += size
            if total > limit:
                return False
            if not sink.put(piece, size):
                await sink.drained()
                self.last_event_at = clock()  # the engine was not silent, but held back
        sink.end()
        return True

    def _begin(self) -> None:
        self.has_begun = True
        self._on_first_event(self._clock() - self.began_at)

    def _encode(self, event: object) -> bytes:
        """Return the JSON to write for an event, empty when nothing is left to write; its usage goes to the context."""
        produced, context = self._format.read(event), self._context
        if produced.usage is not None and not self._is_translated:  # a translation notes the engine's own
            context.usage = produced.usage
        if produced.finish_reason is not None and not context.finish_reason:
            context.finish_reason = produced.finish_reason
        if produced.is_opening:
            self._sink.openings += bool(produced.encoded)
        elif not self.has_begun:
            self._begin()
        if produced.encoded and not produced.has_content:
            self._without_content += 1
        if produced.item_ids:
            self._item_ids.update(dict.fromkeys(produced.item_ids))
        return produced.encoded

    def outcome(self) -> Outcome:
        """Return the outcome of an engine that has ended by itself or after a stop, and has not failed."""
        if self._format.is_one_event and not self._sink.has_content:
            return CANCELLED if self._context.is_stopped else NO_ANSWER
        return Outcome("completed", finish_reason=self._context.finish_reason or "stop")

    def with_figures(self, outcome: Outcome) -> Outcome:
        """Return the outcome with the engine's usage, the number of its events with content, and its items."""
        return outcome._replace(
            usage=reported_usage(self._context),
            content_events=max(0, self._sink.produced - self._without_content),
            is_translated=self._is_translated,
            item_ids=tuple(self._item_ids)[:_MAX_ITEM_IDS],
        )
