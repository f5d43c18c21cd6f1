"""End the requests whose parents have ended.

Whoever sweeps a shard looks at the parents of its requests, which may be in other shards, and cancels those of a parent
that did not complete. Each step may be repeated: a child is looked at until it has ended or its parent has completed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from lifecycle.aio import tasks
from lifecycle.errors import StoreError
from lifecycle.store.request_trees import Child, ParentState
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode

log = logging.getLogger(__name__)

_CALLS_LIMIT = 100  # pages of children in one sweep of a shard; the next sweep continues
_ENDINGS = {
    "stop": "is being stopped",
    "cancelled": "was cancelled",
    "failed": "failed",
    "lost": "was lost",
}


class ParentChecks:
    """Look at parents, and end their children as these say."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def check_due(self, shard: int) -> None:
        """Look at the parents of those requests of a shard whose turn it is. Raises StoreError, RedisError."""
        for _ in range(_CALLS_LIMIT):
            claimed = await self._store.claim_children(shard, self._store.settings.lease_secs)
            await self.check(claimed.children)
            if not claimed.more:
                return

    async def check(self, children: Sequence[Child]) -> None:
        """Look at the parents of these requests.

        Those of a shard that is away are left to a later check. Raises RedisError, and StoreError when the children's
        shards are away.
        """
        by_shard: dict[int, dict[tuple[str, str], list[Child]]] = defaultdict(lambda: defaultdict(list))
        for child in children:
            by_shard[self._store.keys.shard_of(child.parent)][child.parent, child.parent_since].append(child)
        await tasks.in_batches(self._check_shard, list(by_shard.items()))
        tasks.check_cancelled()

    async def _check_shard(self, asked: tuple[int, dict[tuple[str, str], list[Child]]]) -> None:
        shard, by_parent = asked
        try:
            states = await self._store.parent_states(shard, list(by_parent))
        except StoreError as failure:
            tasks.check_cancelled()
            log.debug("the parents in shard %d are looked at later: %s", shard, failure)
            return
        over: dict[int, list[str]] = defaultdict(list)
        ending: list[tuple[Child, ParentState]] = []
        for children, state in zip(by_parent.values(), states, strict=True):
            for child in children:
                if state == "over":
                    over[self._store.keys.shard_of(child.rid)].append(child.rid)
                elif state != "live":
                    ending.append((child, state))
        for children_shard, rids in over.items():
            await self._store.release_children(children_shard, rids)
        await tasks.in_batches(self._end, ending)

    async def _end(self, ending: tuple[Child, ParentState]) -> None:
        child, state = ending
        mode = CancelMode.STOP if state == "stop" else CancelMode.KILL
        reason = f"Its parent, {child.parent}, {_ENDINGS[state]}"
        await self._store.cancel(child.rid, mode, reason, by=f"parent:{child.parent}", retry_for_secs=1.0)
