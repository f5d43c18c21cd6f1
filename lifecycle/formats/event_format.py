"""Read what engines yield, in the format of the endpoint that the request came to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lifecycle.formats.answer_format import AnswerFormat
from lifecycle.formats.chunk_format import ChunkFormat
from lifecycle.formats.json_format import JsonFormat
from lifecycle.formats.messages import MessagesFormat
from lifecycle.formats.origin import Origin
from lifecycle.formats.produced import Produced
from lifecycle.formats.responses import ResponsesFormat
from lifecycle.types import COUNT_TOKENS, FORWARDS, Endpoint, Event


class EventFormat(Protocol):
    """Read the events of one attempt, in order."""

    takes_text: bool
    """Is True when a str is an event of this format, which is written as it is."""

    is_one_event: bool
    """Is True when the answer is exactly one event, so that an engine that yields none has failed."""

    def read(self, event: object) -> Produced:
        """Return what to write for an event. Raises TypeError for a value that is no event of this format."""
        ...

    def is_opening(self, event: Event) -> bool:
        """Return whether the event says only that an answer begins, so that the answer has none of its content yet."""
        ...


def _answer_format(endpoint: str) -> Callable[[Origin], EventFormat]:
    return lambda origin: AnswerFormat(endpoint, bool(origin.emitted))


FORMATS: dict[str, Callable[[Origin], EventFormat]] = {
    Endpoint.CHAT_COMPLETIONS: lambda _: ChunkFormat(),
    Endpoint.COMPLETIONS: lambda _: ChunkFormat(),
    Endpoint.RESPONSES: ResponsesFormat,
    Endpoint.MESSAGES: MessagesFormat,
    **{endpoint: _answer_format(endpoint) for endpoint in (*FORWARDS, COUNT_TOKENS)},
}


def format_of(endpoint: str, origin: Origin) -> EventFormat:
    """Return the format of an endpoint's events for one attempt; that of an application's own endpoint is JSON."""
    make = FORMATS.get(endpoint)
    return JsonFormat() if make is None else make(origin)
