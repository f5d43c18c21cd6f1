"""Tell replicas to drain, to pause or to resume, from any process."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self, cast

from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import ReplicaAction

Instructed = Literal["ok", "unknown", "frontend", "draining"]
Fate = Literal["listed", "left", "expired", "unknown"]


class Instruction(NamedTuple):
    """An operator's instruction to one replica. Of two, the one with the higher `revision` is later."""

    revision: int
    action: ReplicaAction
    by: str  # who gave it, as in a record's `cancelled_by`

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the instruction that Redis keeps as this text, None for none, or for one of a later release."""
        try:
            revision, action, by = text.split(" ", 2)
            return cls(int(revision), ReplicaAction(action), by)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.revision} {self.action.value} {self.by}"


class Instructions(ScriptRunner):
    """The part of the Store that instructs replicas."""

    async def instruct(self, replica: str, action: ReplicaAction, by: str) -> Instructed:
        """Tell a replica what to do, which it learns at once, or with its next heartbeat. `by` says who wants it.

        Returns `unknown` when it is not listed, `frontend` when only a worker can do that, and `draining` when it
        drains, or was told to, which nothing undoes. May be repeated. Raises StoreUnavailable.
        """
        reply = await self._call("instruct", self.keys.control, replica, action.value, by)
        return cast(Instructed, as_text(reply))

    async def fate_of(self, replica: str) -> Fate:
        """Tell what became of a replica: `listed` while it lives.

        `left` means that it left in order: before its end it had nothing left in any shard, and had announced so.
        `expired` means that it ended without that, so that what it had was moved or has failed. `unknown` is one that
        never was there, that ended more than a day ago, or that Redis has lost; a living one comes back with its next
        heartbeat. Raises StoreUnavailable.
        """
        return cast(Fate, as_text(await self._call("fate", self.keys.control, replica, self.settings.lease_secs)))
