"""Tell replicas to drain, to pause or to resume, from any process."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self, cast

from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import ReplicaAction

Instructed = Literal["ok", "unknown", "frontend", "draining"]


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
