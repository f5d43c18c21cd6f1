"""The story of a simulation: who did what when."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple


class Event(NamedTuple):
    at: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:8.3f}  {self.who:<12} {self.what}"


class Story:
    """Events in their order. Times are seconds since the load began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.events: list[Event] = []
        self._clock = clock

    def note(self, who: str, what: str) -> None:
        self.events.append(Event(self._clock(), who, what))

    @property
    def digest(self) -> str:
        """Return a digest by which two simulations can be compared."""
        text = "\n".join(map(str, self.events))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def about(self, rids: set[str]) -> list[Event]:
        """Return the events that name one of these requests or none at all."""
        return [event for event in self.events if not (names := _names(event.what)) or names & rids]

    def __str__(self) -> str:
        return "\n".join(map(str, self.events))


def _names(what: str) -> set[str]:
    return {word.strip(":,()") for word in what.split() if word[:1] == "r" and word.strip(":,()")[1:].isdigit()}
