"""The list of replicas as one process knows it. Only what has changed is read, however long the list is."""

from __future__ import annotations

import asyncio
from typing import Any

from lifecycle.store.results import Roster, RosterEntry


class RosterCache:
    """The entries of the list at one version of it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.epoch = ""
        self.version = ""
        self.announced: tuple[str, str] | None = None  # epoch and version, as the last heartbeat's reply has them
        self._entries: dict[str, RosterEntry] = {}
        self._models: dict[str, float] = {}
        self._now = 0.0
        self._grace = False

    @property
    def age_secs(self) -> float:
        """Return how long ago the list began, as when it was lost; negative when Redis's clock was put back since."""
        return self._now - float(self.epoch.partition("-")[0] or self._now)

    def update(self, reply: list[Any]) -> bool:
        """Take a reply of the script `roster`; return whether there is more to read."""
        now, grace, epoch, version, begins, more, models, *changed = reply
        if begins:
            self._entries.clear()
        self._now, self._grace = float(now), bool(grace)
        self.epoch, self.version = epoch.decode(), version.decode()
        self._models |= {name.decode(): float(at) for name, at in zip(models[::2], models[1::2], strict=True)}
        for name, *entry in changed:
            replica = name.decode()
            if entry:
                self._entries[replica] = RosterEntry(replica, entry[0].decode(), 0, entry[1])
            else:
                self._entries.pop(replica, None)
        return bool(more)

    def roster(self) -> Roster:
        """Return the list, in which no entry says when its lease expires."""
        return Roster(self._now, list(self._entries.values()), dict(self._models), self._grace)
