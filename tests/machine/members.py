"""The model of membership: leases, expired replicas, and the grace after a silence."""

from __future__ import annotations

from lifecycle.types import Role


class Members:
    """`now` is what the test's clock shows; it only moves forward."""

    def __init__(self, lease_secs: int) -> None:
        self.lease_secs = lease_secs
        self.now = 0
        self.leases: dict[str, tuple[Role, int]] = {}
        self.expired_replicas: set[str] = set()
        self.pending_cleanup: dict[str, Role] = {}
        self._seen: int | None = None
        self._grace_until = -1

    def heartbeat(self, replica: str, role: Role) -> bool:
        """Return False when the heartbeat is refused because the id has expired."""
        if replica in self.expired_replicas:
            return False
        self._watch_clock()
        self.leases[replica] = (role, self.now + self.lease_secs)
        return True

    def expire(self, leaving: str = "") -> set[str]:
        self._watch_clock()
        grace = self.now < self._grace_until
        for replica, (role, until) in list(self.leases.items()):
            if replica == leaving or (not grace and until <= self.now):
                del self.leases[replica]
                self.expired_replicas.add(replica)
                self.pending_cleanup[replica] = role
        return set(self.pending_cleanup)

    def _watch_clock(self) -> None:
        if self._seen is not None and self.now - self._seen > self.lease_secs / 2:
            self._grace_until = self.now + self.lease_secs
        self._seen = self.now
