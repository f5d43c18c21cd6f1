"""Describe who makes a call, and what that caller may do and use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lifecycle.queue_share import NO_SHARE, QueueShare
from lifecycle.types import ANONYMOUS, MOST_PRIORITY


class KeyRole(StrEnum):
    """Name the rights of a key: a client sees and cancels its own requests, an operator all of them and the cluster."""

    CLIENT = "client"
    OPERATOR = "operator"


_CLIENT = KeyRole.CLIENT  # a global name: looking a member up in its enum is slow


class PriorityRange(NamedTuple):
    """The priorities that a caller's requests may have, both ends included; a lower one starts first."""

    low: int = 0
    high: int = 0

    def clamp(self, priority: int) -> int:
        """Return the priority in this range that is closest to the wanted one."""
        return min(max(priority, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low}:{self.high}"


NO_PRIORITY = PriorityRange()
ANY_PRIORITY = PriorityRange(-MOST_PRIORITY, MOST_PRIORITY)


@dataclass(frozen=True, slots=True)
class Caller:
    """Describe the user of an API key. Without authentication every call has the same caller, with all rights."""

    name: str = ""
    role: KeyRole = KeyRole.OPERATOR
    inflight_limit: int = 0  # 0: unlimited
    weight: float = 1.0  # share of the queue's throughput, relative to other owners'
    priority: PriorityRange = NO_PRIORITY
    queue_share: QueueShare = NO_SHARE

    @property
    def owner(self) -> str:
        """Return the owner whose requests this caller may see; '' for all owners."""
        return self.name if self.role is _CLIENT else ""

    @property
    def canceller(self) -> str:
        """Return what a record's `cancelled_by` says when this caller cancels a request."""
        return f"{'owner' if self.role is KeyRole.CLIENT else 'operator'}:{self.name}" if self.name else ANONYMOUS

    def visible_owner(self, wanted: str) -> str | None:
        """Return the owner whose requests a query for those of `wanted` ('' for any) finds.

        It is '' for all owners, and None when this caller may not see those of `wanted`.
        """
        if not self.owner:
            return wanted
        return self.owner if wanted in ("", self.owner) else None

    def may_see(self, owner: str | None) -> bool:
        """Return whether this caller may see a request of this owner."""
        return self.role is KeyRole.OPERATOR or owner == self.name


ANYBODY = Caller(priority=ANY_PRIORITY)
