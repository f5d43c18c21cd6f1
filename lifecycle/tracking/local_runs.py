"""Describe what runs requests in a frontend's own process, which is their worker then."""

from __future__ import annotations

from typing import Protocol

from lifecycle.replica.lease import Lease
from lifecycle.store.connect import Connections
from lifecycle.types import CancelMode


class LocalRuns(Protocol):
    """Run the requests that were tracked here. Only `serve` waits."""

    def begin(self, connections: Connections, lease: Lease) -> None:
        """Get ready to run, under the ids that the frontend has in each shard. It is called once."""

    async def serve(self) -> None:
        """Write what the runs yield until cancelled."""

    def cancel(self, rid: str, mode: CancelMode) -> bool:
        """Stop or kill a run. Return False when none of this id is under way."""

    def let_go(self, rid: str) -> None:
        """End a run whose request is over for this frontend: it has ended, or Redis or the shard's lease was lost."""

    def check_streams(self, shard: int) -> None:
        """Let each run of the shard check that Redis has its last events before it appends more."""


class NoLocalRuns:
    """Run nothing, as in a frontend whose requests are for workers."""

    def begin(self, connections: Connections, lease: Lease) -> None:
        """Have nothing to begin."""

    async def serve(self) -> None:
        """Return at once."""

    def cancel(self, rid: str, mode: CancelMode) -> bool:
        """Return False."""
        return False

    def let_go(self, rid: str) -> None:
        """Have nothing to let go."""

    def check_streams(self, shard: int) -> None:
        """Have nothing to check."""
