"""Hold what the parts of one frontend need to know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lifecycle.replica.lease import Lease


@dataclass(slots=True)
class FrontendState:
    """Identify one frontend. `Membership` sets the lease; the others only read it."""

    url: str = ""
    id: str = ""
    lease: Lease | None = None
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
        return self.lease is not None and bool(self.lease.shard_for(rid).forbidden)

    def id_for(self, rid: str) -> str:
        """Return the id under which the shard of a request knows this frontend."""
        return self.id if self.lease is None else self.lease.id_for(rid)
