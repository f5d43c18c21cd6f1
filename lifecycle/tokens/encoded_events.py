"""Hold consecutive events as the JSON in which they were written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast, overload

import orjson

from lifecycle.types import Event


class EncodedEvents(Sequence[Event]):
    """Decode a JSON list of events when somebody looks at one of them: what is only passed on is never decoded.

    Looking at one raises ValueError when the JSON is no list of so many events.
    """

    __slots__ = ("_count", "_decoded", "json")

    def __init__(self, json: bytes, count: int) -> None:
        self.json = json
        self._count = count
        self._decoded: list[Event] | None = None

    @property
    def only_object(self) -> bytes | None:
        """Return the JSON of the only event if that is an object; None for several events, and for any other value."""
        return self.json[1:-1] if self._count == 1 and self.json.startswith(b"[{") else None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._events()[index]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events())

    def _events(self) -> list[Event]:
        if self._decoded is None:
            decoded = orjson.loads(self.json)
            if type(decoded) is not list or len(decoded) != self._count:
                raise ValueError("the JSON of events is no list, or has another number of them")
            self._decoded = cast(list[Event], decoded)
        return self._decoded
