"""Know how far an answer is: which choices have begun and ended, and which fields its texts have.

An event may be encoded more than once, and by any frontend, and its bytes must be the same each time. So the number of
each choice's first event is kept: that event carries the role. For a client that resumes behind an event, the events up
to there are read again (`read_progress`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from frontend.endpoints.known_events import known_events
from lifecycle.formats.chunks import ENVELOPE, is_usage_rest, repeated_fields
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.types import Event

_NOT_REST = ENVELOPE | {"choices", "usage"}
_KEPT_CHANGES = 1024  # more events than are ever encoded again


class ChoiceProgress:
    """Hold what the events so far say about those that follow, by the numbers of the events.

    - `first_events`: the number of each choice's first event, by the index of the choice
    - `finished`: the choices whose finish reason an event had
    - `usage_rest`: what the chunk with the usage held beside it
    """

    __slots__ = ("_repeated", "finished", "first_events", "usage_rest")

    def __init__(self) -> None:
        self.first_events: dict[int, int] = {}
        self.finished: set[int] = set()
        self.usage_rest: dict[str, Any] = {}
        self._repeated: deque[tuple[int, dict[str, str]]] = deque([(0, {})], maxlen=_KEPT_CHANGES)

    @property
    def is_finished(self) -> bool:
        """Return whether an event had the finish reason of choice 0."""
        return 0 in self.finished

    @property
    def is_complete(self) -> bool:
        """Return whether every choice that has begun has finished."""
        return self.finished >= self.first_events.keys()

    @property
    def repeated(self) -> dict[str, str]:
        """Return the fields that a text behind the last event has, see REPEATED_FIELDS."""
        return self._repeated[-1][1]

    @property
    def repeated_since(self) -> tuple[int, dict[str, str]]:
        """Return the number of the event from which on texts have the fields `repeated`, and these fields."""
        return self._repeated[-1]

    def repeated_at(self, number: int) -> dict[str, str]:
        """Return the fields that a text has as the event `number`."""
        since, fields = self._repeated[-1]
        if since <= number:
            return fields
        return next((fields for since, fields in reversed(self._repeated) if since <= number), {})

    def begins(self, index: int, number: int) -> bool:
        """Return whether this event is the first of the choice, also when it is asked again."""
        return self.first_events.setdefault(index, number) == number

    def note(self, first: int, events: Sequence[Event]) -> None:
        """Take note of consecutive events that another reader has delivered; `first` is the number of the first."""
        for number, event in enumerate(events, first):
            if isinstance(event, str):
                self.begins(0, number)
                continue
            if is_usage_rest(event):
                self.usage_rest = {name: value for name, value in event.items() if name not in _NOT_REST}
                continue
            since, fields = self._repeated[-1]
            found = repeated_fields(event)
            if number > since and not found.items() <= fields.items():
                self._repeated.append((number, fields | found))
            for choice in choices_of(event):
                index = index_of(choice)
                self.begins(index, number)
                if choice.get("finish_reason") is not None:
                    self.finished.add(index)


def choices_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the event's choices that are objects."""
    choices = event.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def index_of(choice: dict[str, Any]) -> int:
    """Return the index of a choice; 0 when it has none."""
    index = choice.get("index")
    return index if type(index) is int else 0


async def read_progress(store: Store, rid: str, after: TokenId) -> ChoiceProgress:
    """Return the progress at the event `after`. Raises StoreUnavailable."""
    progress = ChoiceProgress()
    async for tokens in known_events(store, rid, after):
        progress.note(tokens.first, tokens.events)
    return progress
