"""Hold the kinds of values that Redis has, as far as lifecycle uses them.

A string is `bytes`, a hash a `Hash`, and a set a `Members`. Dicts keep the order of insertion, so nothing depends on
the hash of an object.
"""

from __future__ import annotations

from bisect import bisect_left, insort

EntryId = tuple[int, int]
HIGHEST: EntryId = (2**64 - 1, 2**64 - 1)


class Hash(dict[bytes, bytes]):
    """A hash: field to value."""


class Members(dict[bytes, None]):
    """A set."""


class SortedSet:
    """A sorted set: members by score, and by their bytes where scores are equal."""

    __slots__ = ("ordered", "scores")

    def __init__(self) -> None:
        self.scores: dict[bytes, float] = {}
        self.ordered: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, member: bytes, score: float) -> None:
        before = self.scores.get(member)
        if before == score:
            return
        if before is not None:
            self._drop(member, before)
        self.scores[member] = score
        insort(self.ordered, (score, member))

    def remove(self, member: bytes) -> bool:
        """Remove a member; return whether it was there."""
        score = self.scores.pop(member, None)
        if score is None:
            return False
        self._drop(member, score)
        return True

    def _drop(self, member: bytes, score: float) -> None:
        del self.ordered[bisect_left(self.ordered, (score, member))]


class Stream:
    """A stream: entries in the order of their ids."""

    __slots__ = ("entries", "ids", "last_id")

    def __init__(self) -> None:
        self.ids: list[EntryId] = []
        self.entries: dict[EntryId, list[bytes]] = {}
        self.last_id: EntryId = (0, 0)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, entry_id: EntryId, flat: list[bytes]) -> None:
        self.ids.append(entry_id)
        self.entries[entry_id] = flat
        self.last_id = entry_id

    def remove(self, entry_id: EntryId) -> bool:
        """Remove an entry; return whether it was there."""
        if self.entries.pop(entry_id, None) is None:
            return False
        del self.ids[bisect_left(self.ids, entry_id)]
        return True

    def between(self, low: EntryId, high: EntryId) -> list[EntryId]:
        """Return the ids from `low` to `high`, both included."""
        first = bisect_left(self.ids, low)
        return self.ids[first : bisect_left(self.ids, (high[0], high[1] + 1))]


Value = bytes | Hash | Members | SortedSet | Stream
EMPTY: tuple[type, ...] = (Hash, Members, SortedSet)
"""Kinds that vanish with their last member."""


def format_id(entry_id: EntryId) -> bytes:
    return b"%d-%d" % entry_id


def parse_id(text: bytes, seq: int = 0) -> EntryId:
    """Return an entry id; `seq` is its second part if the text has none."""
    ms, dash, rest = text.partition(b"-")
    return int(ms), int(rest) if dash else seq
