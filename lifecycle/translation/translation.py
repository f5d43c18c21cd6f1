"""Define a translation: one endpoint, served by an engine that serves chat completions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from lifecycle.formats.origin import Origin
from lifecycle.translation.messages import MessagesTranslation
from lifecycle.translation.responses import ResponsesTranslation
from lifecycle.types import Endpoint, Event


class Translation(Protocol):
    """Translate one attempt at a request. It does no I/O."""

    request: dict[str, Any]
    """The body of the chat completion that the engine gets."""

    emitted: Sequence[Event]
    """What earlier attempts have left, as the events of chat that they came from."""

    def begin(self) -> Iterable[Event]:
        """Return the events that open the answer."""
        ...

    def add(self, event: Event) -> Iterable[Event]:
        """Return the events for the next event of the engine: a text, or a chunk of chat without usage."""
        ...

    def end(self, finish_reason: str, usage: dict[str, Any] | None) -> Iterable[Event]:
        """Return the events that complete the answer. `usage` has chat's names."""
        ...


TRANSLATIONS: dict[str, Callable[[Origin], Translation]] = {
    Endpoint.MESSAGES: MessagesTranslation,
    Endpoint.RESPONSES: ResponsesTranslation,
}
"""By the endpoint that is served."""
