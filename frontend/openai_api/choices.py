"""Know which choices of an answer have begun and ended, from the numbers of its events.

An event may be encoded more than once, and by any frontend, and its bytes must be the same each time. So the number of
each choice's first event is kept: that event carries the role. For a client that resumes behind an event, the events up
to there are read again (`read_progress`).
"""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import RedisError

from lifecycle.ids import START, TokenId
from lifecycle.store.transitions import Store
from lifecycle.tokens.history import read_history
from lifecycle.tokens.items import Tokens
from lifecycle.types import Event

log = logging.getLogger(__name__)


class ChoiceProgress:
    """Hold the number of each choice's first event, and whether the engine has sent the end of choice 0."""

    __slots__ = ("first_events", "is_finished")

    def __init__(self) -> None:
        self.first_events: dict[int, int] = {}  # by the index of the choice
        self.is_finished = False  # an event had a finish reason of choice 0

    def begins(self, index: int, number: int) -> bool:
        """Return whether this event is the first of the choice, also when it is asked again."""
        return self.first_events.setdefault(index, number) == number

    def note(self, first: int, events: list[Event]) -> None:
        """Take note of consecutive events that another reader has delivered; `first` is the number of the first."""
        for number, event in enumerate(events, first):
            if isinstance(event, str):
                self.begins(0, number)
                continue
            for choice in choices_of(event):
                index = index_of(choice)
                self.begins(index, number)
                if index == 0 and choice.get("finish_reason") is not None:
                    self.is_finished = True


def choices_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the event's choices that are objects."""
    choices = event.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def index_of(choice: dict[str, Any]) -> int:
    """Return the index of a choice; 0 when it has none."""
    index = choice.get("index")
    return index if type(index) is int else 0


async def read_progress(store: Store, rid: str, after: TokenId) -> ChoiceProgress:
    """Return the progress at the event `after`. Raises StoreUnavailable.

    A stream that cannot be read counts as empty, since the reader of the events behind `after` reports it.
    """
    progress, position = ChoiceProgress(), str(START)
    try:
        while after.number > 0:
            page = await read_history(store, rid, position)
            for item in page.items:
                if isinstance(item, Tokens):
                    progress.note(item.first, item.events[: max(0, after.number + 1 - item.first)])
                    if item.last >= after.number:
                        return progress
            if page.exhausted:
                break
            position = page.next_id
    except (RedisError, ValueError):
        log.exception("the events of %s up to %s cannot be read", rid, after)
    return progress
