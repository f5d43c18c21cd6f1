"""Find out what the access rules of Redis forbid a replica in one shard, after they were changed while it runs.

A look costs Redis about half a heartbeat, so not every heartbeat looks. A worker meets what is forbidden by itself. Of
a frontend that need not be so: it waits for what workers write, so it looks as long as it waits for something.
"""

from __future__ import annotations

import time

from lifecycle.errors import StoreForbidden
from lifecycle.store.permissions import find_forbidden, forbidden_error, needed_commands
from lifecycle.store.transitions import Store
from lifecycle.types import Role


class ShardPermissions:
    """Know which commands Redis forbids a replica in one shard, as of the last look."""

    def __init__(self, store: Store, shard: int, role: Role) -> None:
        self.forbidden: tuple[str, ...] = ()
        self._store = store
        self._prefix = store.keys.prefixes[shard]
        self._role = role
        self._calls_seen = 0  # that were forbidden
        self._look_at = float("-inf")

    def look_again(self) -> None:
        """Let the next `look` have a reason."""
        self._look_at = float("-inf")

    async def look(self, *, waits: bool) -> None:
        """Look if there is a reason to: a script was forbidden, the last look found something or is a lease ago.

        `waits` is a further reason: clients wait here for what other replicas do. Raises StoreUnavailable.
        """
        calls, now = self._store.forbidden_calls, time.monotonic()
        if not (waits or self.forbidden or calls != self._calls_seen or now >= self._look_at):
            return
        try:
            self.forbidden = await find_forbidden(self._store, needed_commands(self._role), self._prefix)
        except StoreForbidden as failure:
            self.forbidden = failure.commands or self.forbidden
            raise
        self._calls_seen, self._look_at = calls, now + self._store.settings.lease_secs

    def error(self) -> StoreForbidden:
        """Return the error that names what is forbidden."""
        return forbidden_error(self._role, self.forbidden)
