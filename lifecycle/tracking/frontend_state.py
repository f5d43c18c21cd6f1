"""Hold what the parts of one frontend need to know about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lifecycle.replica.shard_lease import ShardLease


@dataclass(slots=True)
class FrontendState:
    """Identify one frontend. `Membership` sets the leases; the others only read them."""

    url: str = ""
    id: str = ""
    shard_of: Callable[[str], int] = field(default=lambda _: 0)
    leases: Sequence[ShardLease] = ()  # by shard
    draining: bool = False  # no more requests are admitted
    has_left: bool = False  # the shards judge what it held
    renew: Callable[[], None] = field(default=lambda: None)  # the leases at once, as Redis has refused a command
    on_drain: Callable[[], None] | None = None  # called when an operator wants a drain, which then ends the process

    def drain(self) -> None:
        """Begin to drain, as an operator wants it."""
        self.draining = True
        if self.on_drain is not None:
            self.on_drain()

    def is_forbidden(self, rid: str) -> bool:
        """Return whether the access rules of Redis forbid commands in the shard of a request."""
        return bool(self.leases and self.leases[self.shard_of(rid)].forbidden)

    def id_for(self, rid: str) -> str:
        """Return the id under which the shard of a request knows this frontend."""
        return self.leases[self.shard_of(rid)].id if self.leases else self.id
